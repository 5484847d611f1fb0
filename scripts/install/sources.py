"""Where packages come from: the user's settings of pip and of uv, cleaned, and translated both ways.

Only settings that say where packages come from and how they are fetched are kept. Those that would send them
to another place (`user`, `target`, `prefix`, …) or change what is installed (`no-deps`, `only-binary`, …) are
left out, since the place and the versions are the project's. So are settings that nobody knows yet.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

PYPI = "https://pypi.org/simple"
#: pip's settings that are kept, by their names in pip.conf.
KEPT = frozenset({
    "index-url", "pypi-url", "extra-index-url", "find-links", "no-index", "trusted-host", "cert",
    "client-cert", "proxy", "timeout", "default-timeout", "retries", "constraint", "keyring-provider",
    "cache-dir", "no-cache-dir", "use-feature", "use-deprecated",
})  # fmt: skip
#: Settings of KEPT for which uv has no equivalent. Where one is set, pip installs.
PIP_ALONE = frozenset({"client-cert", "keyring-provider", "use-deprecated"})
#: Settings that are dropped without a word, since they do not change which packages are installed.
SILENT = frozenset({
    "disable-pip-version-check", "no-python-version-warning", "no-input", "no-color", "progress-bar", "quiet",
    "verbose", "log", "debug", "require-virtualenv", "break-system-packages", "root-user-action",
    "config-file",
})  # fmt: skip
#: uv's variables that are kept.
KEPT_OF_UV = re.compile(
    r"UV_(INDEX(_URL|_STRATEGY|_\w+_(USERNAME|PASSWORD))?|DEFAULT_INDEX|EXTRA_INDEX_URL|FIND_LINKS|NO_INDEX"
    r"|CONSTRAINT|KEYRING_PROVIDER|CACHE_DIR|NO_CACHE|HTTP_\w+|REQUEST_TIMEOUT|NATIVE_TLS|SYSTEM_CERTS"
    r"|INSECURE_HOST|OFFLINE|CONCURRENT_\w+|LINK_MODE|CONFIG_FILE|NO_CONFIG)"
)
_LINE = re.compile(r"(global|install|:env:)\.([\w-]+)=(.*)")
_UV_FILE_PLACES = re.compile(
    r"^\s*(target|prefix|system|break-system-packages|python|require-hashes|no-binary|no-deps)\s*=", re.M
)
_UV_FILE_INDEX = re.compile(
    r"^\s*(index-url\s*=|extra-index-url\s*=|index\s*=|\[\[(tool\.uv\.)?index\]\])", re.M
)


@dataclass(frozen=True, slots=True)
class Sources:
    """The user's settings of pip and uv. `pip` has pip's by their names in pip.conf, `uv` has variables."""

    pip: Mapping[str, str] = field(default_factory=dict)
    uv: Mapping[str, str] = field(default_factory=dict)
    #: Names of pip's settings that are left out and worth a line.
    left_out: tuple[str, ...] = ()
    #: Whether a file of uv's names an index, and why uv cannot be used because of it, if so.
    uv_file_index: bool = False
    uv_refused: str = ""

    @property
    def index(self) -> str:
        """The index that the user has instead of PyPI, or "" without one."""
        url = _first_url(self.uv, "UV_DEFAULT_INDEX", "UV_INDEX_URL") or self.pip.get("index-url", "")
        return "" if url.rstrip("/") == PYPI else url

    @property
    def extra_indexes(self) -> list[str]:
        """The indexes that the user has beside it."""
        return [*self.pip.get("extra-index-url", "").split(), *_uv_extra(self.uv)]

    @property
    def no_index(self) -> bool:
        """Whether the user forbids every index, so that there are only files and folders (`find-links`)."""
        return _on(self.pip.get("no-index", "")) or _on(self.uv.get("UV_NO_INDEX", ""))

    def for_pip(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment for pip: the kept settings, and no file of settings."""
        given = {
            "index-url": _first_url(self.uv, "UV_DEFAULT_INDEX", "UV_INDEX_URL"),
            "extra-index-url": " ".join(_uv_extra(self.uv)),
            "find-links": self.uv.get("UV_FIND_LINKS", "").replace(",", " "),
            "no-index": self.uv.get("UV_NO_INDEX", ""),
            **self.pip,
        }
        kept = {f"PIP_{name.upper().replace('-', '_')}": value for name, value in given.items() if value}
        rest = {name: value for name, value in environment.items() if not name.startswith("PIP_")}
        return {**rest, **kept, "PIP_CONFIG_FILE": os.devnull}

    def for_uv(self, environment: Mapping[str, str]) -> dict[str, str]:
        """The environment for uv: its own settings, and pip's where it has none."""
        pip = self.pip
        given = {
            "UV_FIND_LINKS": ",".join(map(_absolute, pip.get("find-links", "").split())),
            "UV_CONSTRAINT": " ".join(map(_absolute, pip.get("constraint", "").split())),
            "UV_NO_INDEX": "1" if _on(pip.get("no-index", "")) else "",
            "UV_NO_CACHE": "1" if _on(pip.get("no-cache-dir", "")) else "",
            "UV_INSECURE_HOST": " ".join(pip.get("trusted-host", "").split()),
            "UV_HTTP_TIMEOUT": pip.get("timeout", "") or pip.get("default-timeout", ""),
            "SSL_CERT_FILE": pip.get("cert", ""),
            "ALL_PROXY": pip.get("proxy", ""),
        }
        if not _first_url(self.uv, "UV_DEFAULT_INDEX", "UV_INDEX_URL") and not self.uv_file_index:
            given["UV_DEFAULT_INDEX"] = pip.get("index-url", "")
        if not _uv_extra(self.uv) and not self.uv_file_index:
            given["UV_INDEX"] = " ".join(pip.get("extra-index-url", "").split())
        # As pip does: the best version of all indexes, and not the first index that has any.
        given["UV_INDEX_STRATEGY"] = "unsafe-best-match"
        own = dict(self.uv)
        if "UV_FIND_LINKS" in own:  # uv is started in the project's folder
            own["UV_FIND_LINKS"] = ",".join(map(_absolute, own["UV_FIND_LINKS"].split(",")))
        rest = {name: value for name, value in environment.items() if not name.startswith("UV_")}
        return {**{name: value for name, value in given.items() if value}, **rest, **own}


def read_sources(pip_config: str, environment: Mapping[str, str]) -> Sources:
    """The user's settings.

    Args:
        pip_config: the output of `pip config list`.
        environment: the variables, for uv's.
    """
    levels: dict[str, dict[str, str]] = {"global": {}, "install": {}, ":env:": {}}
    for line in pip_config.splitlines():
        if found := _LINE.fullmatch(line.strip()):
            levels[found[1]][found[2].lower().replace("_", "-")] = _text(found[3])
    given = {**levels["global"], **levels["install"], **levels[":env:"]}
    if "pypi-url" in given:
        given.setdefault("index-url", given.pop("pypi-url"))
    kept = {name: value for name, value in given.items() if name in KEPT and value}
    uv = {name: value for name, value in environment.items() if KEPT_OF_UV.fullmatch(name) and value}
    files = "\n".join(_texts(_uv_files(environment)))
    alone = sorted(PIP_ALONE & set(kept))
    refused = ""
    if alone:
        refused = f"pip's setting {alone[0]} has no like in uv"
    elif found := _UV_FILE_PLACES.search(files):
        refused = f"uv.toml sets {found[1]}"
    left_out = tuple(sorted(name for name in given if name not in KEPT | SILENT and _on(given[name])))
    return Sources(kept, uv, left_out, bool(_UV_FILE_INDEX.search(files)), refused)


def without_password(url: str) -> str:
    """The address as it may be shown."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _first_url(variables: Mapping[str, str], *names: str) -> str:
    found = next((variables[name] for name in names if variables.get(name)), "")
    return _unnamed(found)


def _uv_extra(variables: Mapping[str, str]) -> list[str]:
    words = f"{variables.get('UV_INDEX', '')} {variables.get('UV_EXTRA_INDEX_URL', '')}".split()
    return [_unnamed(word) for word in words]


def _unnamed(index: str) -> str:
    """The address of an index of uv's, which may be written `name=address`."""
    return re.sub(r"^[\w.-]+=", "", index)


def _text(value: str) -> str:
    try:
        return str(ast.literal_eval(value))
    except (ValueError, SyntaxError):
        return value


def _on(value: str) -> bool:
    return value.strip().lower() not in ("", "0", "no", "n", "off", "false", "f")


def _absolute(place: str) -> str:
    """A relative path as an absolute one. An address stays."""
    return place if "://" in place else os.path.abspath(os.path.expanduser(place))


def _uv_files(environment: Mapping[str, str]) -> list[Path]:
    """The files that uv reads beside the project's own."""
    if environment.get("UV_NO_CONFIG"):
        return []
    if named := environment.get("UV_CONFIG_FILE"):
        return [Path(named)]
    folders = [environment.get("XDG_CONFIG_HOME") or f"{environment.get('HOME', '')}/.config"]
    folders += [*environment.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":"), "/etc"]
    return [Path(folder) / "uv/uv.toml" for folder in folders]


def _texts(files: Iterable[Path]) -> list[str]:
    texts = []
    for file in files:
        try:
            texts.append(file.read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue
    return texts
