"""Where the project's code is, and where a run keeps its files when the user names no place."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

#: Folder with the packages: the checkout, or the site-packages of an installed copy.
ROOT = Path(__file__).resolve().parents[3]


def default_log_dir(env: Mapping[str, str], root: Path = ROOT) -> Path:
    """`logs/` of a checkout that can be written. Any other copy stays as it is and gets one of the user's.

    Args:
        env: the environment, of which XDG_STATE_HOME and HOME are read.
        root: folder with the packages.
    """
    if (root / "pyproject.toml").is_file() and _can_make(root / "logs"):
        return root / "logs"
    return state_dir(env) / "logs"


def state_dir(env: Mapping[str, str]) -> Path:
    """The project's folder for files that outlast a run.

    It is `$XDG_STATE_HOME/echomimic-live`, else `~/.local/state/echomimic-live`. A user whose home cannot be
    written, such as a service's, gets one among the temporary files.
    """
    return _own_folder(env, "XDG_STATE_HOME", ".local/state", "state")


def config_dir(env: Mapping[str, str]) -> Path:
    """The project's folder for keys and certificates.

    It is `$XDG_CONFIG_HOME/echomimic-live`, else `~/.config/echomimic-live`, else one among the temporary
    files, as for `state_dir`. Whoever writes secrets there makes it by `make_private_folder`.
    """
    return _own_folder(env, "XDG_CONFIG_HOME", ".config", "config")


def make_private_folder(folder: Path) -> None:
    """Make a folder for secrets, mode 0700.

    Raises:
        OSError: it cannot be made, or it is there and belongs to another user. The text says why.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    # Among the temporary files, another user can put a folder or a link at the expected place first.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "this is not a folder of this user", str(folder))
    if stat.S_IMODE(found.st_mode) & 0o022:
        folder.chmod(0o700)


def _own_folder(env: Mapping[str, str], variable: str, below_home: str, kind: str) -> Path:
    for place in (Path(env.get(variable, "")), Path(env.get("HOME", "")) / below_home):
        # The specification of XDG says that a relative path is to be ignored.
        if place.is_absolute() and _can_make(place):
            return place / "echomimic-live"
    return Path(tempfile.gettempdir()) / f"echomimic-live-{os.getuid()}-{kind}"


def default_token_file(env: Mapping[str, str]) -> Path | None:
    """The usual token file: `$XDG_CONFIG_HOME/echomimic-live/tokens.json`, else below `~/.config`.

    Args:
        env: the environment, of which XDG_CONFIG_HOME and HOME are read.

    Returns:
        The file, which need not exist. None for a user without a home.
    """
    candidates = [Path(env.get("XDG_CONFIG_HOME", "")), Path(env.get("HOME", "")) / ".config"]
    for place in candidates:
        if place.is_absolute():
            return place / "echomimic-live" / "tokens.json"
    return None


def official_config(env: Mapping[str, str], model_dir: Path | None) -> Path:
    """The configuration of `--model official`, which the launcher writes before any stage starts.

    Every process finds it from the settings alone, so that a worker started by hand does too.

    Args:
        env: the environment, as for `state_dir`.
        model_dir: `--model-dir`. Each folder has a configuration of its own.
    """
    own = (
        "" if model_dir is None else "-" + hashlib.sha256(os.fsencode(model_dir.absolute())).hexdigest()[:12]
    )
    return state_dir(env) / f"official{own}" / "official.yaml"


def _can_make(folder: Path) -> bool:
    """Whether the folder can be written, or made where it does not exist."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
