"""One typed settings object for every process.

Flags go before ECHOMIMIC_* variables, those before the `--settings` file, and that before the defaults.

No other module reads the environment.
"""

from __future__ import annotations

import argparse
import difflib
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NoReturn

from protocol.hop.endpoints import IPC_PATH_BYTES, LOOPBACK
from protocol.process.settings.places import ROOT, default_log_dir
from protocol.process.settings.values import MAX_WORKERS, PARSERS, SettingsError, check_limits
from protocol.wire.clock import SAMPLE_RATE

__all__ = [
    "ROOT",
    "Settings",
    "SettingsError",
    "default_run_dir",
    "flag",
    "flags_of",
    "load_settings",
    "settings_from_command_line",
]

ENV_PREFIX = "ECHOMIMIC_"
UNSET = Path()  # replaced by what depends on another setting
HERE = Path()


def _meta(text: str, kind: str = "str", **limits: Any) -> dict[str, Any]:
    return {"help": text, "kind": kind, **limits}


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be set: a field is the flag `--its-name` and the variable `ECHOMIMIC_ITS_NAME`."""

    host: str = field(
        default="127.0.0.1", metadata=_meta("address the page is served on; loopback only", choices=LOOPBACK)
    )
    port: int = field(default=8080, metadata=_meta("port the page is served on", "int", low=1, high=65535))
    audio_margin: int = field(
        default=2, metadata=_meta("video frames of audio context on each side", "int", low=0, high=8)
    )
    use_init_latent: bool = field(
        default=True, metadata=_meta("start each clip from the end of the one before", "bool")
    )
    late_start: int = field(
        default=0,
        metadata=_meta("steps that clips skip which start from the one before", "int", low=0, high=99),
    )
    compile_unet: bool = field(
        default=False, metadata=_meta("compile the denoiser; on CUDA its own fast path", "bool")
    )
    tier: str = field(
        default="exact",
        metadata=_meta(
            "on CUDA: exact, or fast, which approximates (the denoiser with --compile-unet)",
            choices=("exact", "fast"),
        ),
    )
    config: Path = field(
        default=ROOT / "demo/bundled/model/infer_bundled.yaml",
        metadata=_meta("model configuration (infer_acc.yaml layout)", "path"),
    )
    reference_image: tuple[Path, ...] = field(
        default=(), metadata=_meta("reference image(s); bundled avatars if none", "paths")
    )
    avatar_dir: Path = field(
        default=ROOT / "demo/bundled/avatars", metadata=_meta("folder of bundled avatars", "path")
    )
    pose_dir: tuple[Path, ...] = field(
        default=(), metadata=_meta("pose folder(s) or .npz; bundled poses if none", "paths")
    )
    sample_rate: int = field(
        default=SAMPLE_RATE,
        metadata=_meta("rate of a version 1 client's PCM, Hz", "int", low=8000, high=192000),
    )
    fps: int | None = field(
        default=None,
        metadata=_meta(
            "frame rate; the highest of 24, 12, 8 this machine holds if not given", "int?", low=1, high=60
        ),
    )
    clip_frames: int = field(default=12, metadata=_meta("frames of a clip at 24 fps", "int", low=1, high=24))
    steps: int | None = field(
        default=None, metadata=_meta("denoising steps; the model's if not given", "int?", low=1, high=100)
    )
    cfg: float | None = field(
        default=None, metadata=_meta("guidance scale; the model's if not given", "float?", low=1, high=30)
    )
    width: int | None = field(
        default=None,
        metadata=_meta("picture width; the model's if not given", "int?", low=64, high=2048, multiple=8),
    )
    height: int | None = field(
        default=None,
        metadata=_meta("picture height; the model's if not given", "int?", low=64, high=2048, multiple=8),
    )
    seed: int = field(default=0, metadata=_meta("seed of the noise", "int", low=0, high=2**63 - 1))
    encoders: int = field(
        default=1, metadata=_meta("encoder workers to start", "int", low=0, high=MAX_WORKERS)
    )
    audio_workers: int = field(
        default=1, metadata=_meta("audio workers to start", "int", low=1, high=MAX_WORKERS)
    )
    gpu_devices: tuple[str, ...] = field(
        default=("auto",),
        metadata=_meta("devices of the GPU workers, one each, such as cuda:0,cuda:1 or cpu", "strs"),
    )
    encoder_devices: tuple[str, ...] = field(
        default=("auto",), metadata=_meta("devices the encoders take in turn", "strs")
    )
    dtype: str = field(
        default="auto",
        metadata=_meta("arithmetic of the models", choices=("auto", "float32", "bfloat16", "float16")),
    )
    jpeg_quality: int = field(
        default=90, metadata=_meta("quality of the pictures sent", "int", low=1, high=100)
    )
    max_sessions: int = field(default=4, metadata=_meta("sessions at once", "int", low=1, high=1000))
    threads: int = field(
        default=0,
        metadata=_meta("threads of each model process; 0 is half of the cores", "int", low=0, high=1024),
    )
    idle_flush: float = field(
        default=0.3,
        metadata=_meta(
            "seconds without speech data before a partial clip is finished", "float", low=0.05, high=10
        ),
    )
    run_dir: Path = field(
        default=UNSET,
        metadata=_meta(
            "folder of the sockets, a new or an empty one, removed afterwards if the run made it;"
            " one with other files is refused; /tmp/echomimic-live-UID-PORT if not given",
            "path",
        ),
    )
    log_dir: Path = field(
        default=default_log_dir(os.environ),
        metadata=_meta(
            "folder of the logs; its files stay as they are; logs/ beside the code if not given,"
            " for an installed copy ~/.local/state/echomimic-live/logs",
            "path",
        ),
    )
    log_level: str = field(
        default="INFO", metadata=_meta("least severe log line", choices=("DEBUG", "INFO", "WARNING", "ERROR"))
    )
    transport: str = field(
        default="ipc", metadata=_meta("sockets between the stages", choices=("ipc", "tcp"))
    )
    tcp_base_port: int = field(
        default=9000, metadata=_meta("first port of --transport tcp", "int", low=1024, high=65535 - 300)
    )
    credit: int = field(
        default=2, metadata=_meta("jobs a worker holds at once from one upstream", "int", low=1, high=64)
    )
    dead_after: float = field(
        default=5.0,
        metadata=_meta("seconds of silence before a worker is given up", "float", low=1, high=600),
    )
    stall_after: float = field(
        default=60.0,
        metadata=_meta("seconds on one job before a worker is given up", "float", low=1, high=86400),
    )
    worker_index: int = field(
        default=0, metadata=_meta("number of this worker in its stage", "int", low=0, high=MAX_WORKERS - 1)
    )
    passthrough: bool = field(
        default=False, metadata=_meta("no denoiser: measure what the plumbing alone costs", "bool")
    )
    shared_dir: Path = field(
        default=ROOT.parent / "shared", metadata=_meta("folder of the tests' golden data", "path")
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            if f.name == "run_dir" and self.run_dir == UNSET:
                object.__setattr__(self, "run_dir", default_run_dir(self.port))
            elif f.name == "run_dir":
                object.__setattr__(self, "run_dir", self.run_dir.absolute())
            check_limits(flag(f.name), getattr(self, f.name), f.metadata)
        if self.transport == "ipc":
            longest = len(os.fsencode(self.run_dir / f"latents.{MAX_WORKERS - 1}"))
            if longest > IPC_PATH_BYTES:
                raise SettingsError(
                    f"--run-dir {self.run_dir}: its sockets' paths would have {longest} bytes and the system"
                    f" takes {IPC_PATH_BYTES}; choose a shorter folder"
                )

    def endpoint(self, name: str, index: int | None = None) -> str:
        """The URL of hop `pcm`, `results`, `clips` (of audio worker `index`) or `latents` (of GPU worker)."""
        offsets = {"pcm": 0, "results": 1, "clips": MAX_WORKERS, "latents": 2 * MAX_WORKERS}
        if name not in offsets or (index is None) != (name in ("pcm", "results")):
            raise ValueError(f"no endpoint {name!r} with index {index}")
        if not 0 <= (index or 0) < MAX_WORKERS:
            raise ValueError(f"endpoint {name}: index {index} is not 0 to {MAX_WORKERS - 1}")
        if self.transport == "tcp":
            return f"tcp://127.0.0.1:{self.tcp_base_port + offsets[name] + (index or 0)}"
        return f"ipc://{self.run_dir / (name if index is None else f'{name}.{index}')}"

    def endpoints(self, name: str) -> list[str]:
        """Every URL that a worker fed by hop `name` connects to."""
        counts = {"clips": self.audio_workers, "latents": len(self.gpu_devices)}
        if name not in counts:
            return [self.endpoint(name)]
        return [self.endpoint(name, index) for index in range(counts[name])]


def default_run_dir(port: int) -> Path:
    """Derived from user and port alone, so that a worker started by hand finds the run."""
    return Path(f"/tmp/echomimic-live-{os.getuid()}-{port}")


def flag(name: str) -> str:
    """The command-line flag of a field."""
    return "--" + name.replace("_", "-")


def load_settings(argv: Sequence[str] | None = None, env: Mapping[str, str] | None = None) -> Settings:
    """The settings from flags (`sys.argv` if None), environment and the `--settings` file.

    Raises SettingsError naming the flag, variable or file entry that is wrong. `--help` exits.
    """
    env = os.environ if env is None else env
    given = vars(_parser().parse_args(sys.argv[1:] if argv is None else list(argv)))
    file = given.pop("settings", None) or env.get(ENV_PREFIX + "SETTINGS")
    values: dict[str, Any] = {}
    if file:
        values.update(_from_file(Path(file)))
    values.update(_from_env(env))
    values.update({name: _parse(name, flag(name), value) for name, value in given.items()})
    return Settings(**values)


def settings_from_command_line() -> Settings:
    """`load_settings()` for a `__main__`: a wrong setting is told on stderr, exit status 2."""
    try:
        return load_settings()
    except SettingsError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(2) from None


def flags_of(settings: Settings) -> list[str]:
    """The command line that gives exactly these settings: what a supervisor hands to the stages."""
    words: list[str] = []
    for f in fields(settings):
        value = getattr(settings, f.name)
        if f.metadata["kind"] == "bool":
            words.append(flag(f.name) if value else "--no-" + flag(f.name)[2:])
        elif isinstance(value, tuple):
            words += [word for item in value for word in (flag(f.name), str(item))]
        elif value is not None:
            words += [flag(f.name), str(value)]
    return words


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SettingsError(f"{message}; --help lists the flags") from None


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        argument_default=argparse.SUPPRESS, allow_abbrev=False,
        description="Every process of echomimic-live takes these flags; each is also the variable "
        "ECHOMIMIC_<NAME> and a key of the --settings file.",
    )  # fmt: skip
    parser.add_argument("--settings", metavar="FILE.yaml", help="YAML file of settings, by the flags' names")
    for f in fields(Settings):
        text, kind = str(f.metadata["help"]), f.metadata["kind"]
        if kind == "bool":
            parser.add_argument(
                flag(f.name),
                action=argparse.BooleanOptionalAction,
                help=f"{text} (default {'on' if f.default else 'off'})",
            )
            continue
        shown = (
            "" if f.default in (None, ()) or kind.startswith("path") else f" (default {_shown(f.default)})"
        )
        metavar = "|".join(f.metadata["choices"]) if "choices" in f.metadata else _METAVARS[kind.rstrip("?")]
        many = {"action": "append"} if kind in ("paths", "strs") else {}
        parser.add_argument(flag(f.name), metavar=metavar, help=text.replace("%", "%%") + shown, **many)  # type: ignore[arg-type]
    return parser


def _shown(default: object) -> str:
    return ",".join(default) if isinstance(default, tuple) else str(default)


_METAVARS = {"str": "NAME", "int": "N", "float": "X", "path": "PATH", "paths": "PATH", "strs": "NAME[,NAME]"}


def _from_env(env: Mapping[str, str]) -> dict[str, Any]:
    names = {ENV_PREFIX + f.name.upper(): f.name for f in fields(Settings)}
    values = {}
    for variable, value in env.items():
        if variable in names:
            values[names[variable]] = _parse(names[variable], variable, value)
        elif variable.startswith(ENV_PREFIX) and variable != ENV_PREFIX + "SETTINGS":
            # only near misses: other tools may have variables of their own under the prefix
            close = difflib.get_close_matches(variable, names, 1, 0.85)
            if close:
                raise SettingsError(f"{variable} is no setting; did you mean {close[0]}?")
    return values


def _from_file(path: Path) -> dict[str, Any]:
    import yaml  # not installed yet when a launcher asks for --help

    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--settings {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        detail = " ".join(str(error).split())
        raise SettingsError(f"--settings {path}: not YAML: {detail}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise SettingsError(f"--settings {path}: not a map from setting to value")
    names = [f.name for f in fields(Settings)]
    values = {}
    for key, value in loaded.items():
        name = str(key).replace("-", "_")
        if name not in names:
            close = difflib.get_close_matches(name, names, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise SettingsError(f"--settings {path}: {key} is no setting{hint}")
        values[name] = _parse(name, f"{path}: {key}", value, path.parent)
    return values


def _parse(name: str, where: str, value: Any, folder: Path = HERE) -> Any:
    """`value` (text, or what YAML made of it) as the type of field `name`; `where` names it in errors.

    Relative paths are relative to `folder`: the current one, or for a file's entries the file's.
    """
    meta = next(f.metadata for f in fields(Settings) if f.name == name)
    kind = meta["kind"]
    if kind.endswith("?") and (value is None or value == ""):
        return None
    parsed = _in_folder(folder, PARSERS[kind.rstrip("?")](where, value))
    check_limits(where, parsed, meta)
    return parsed


def _in_folder(folder: Path, value: Any) -> Any:
    if isinstance(value, Path):
        return (folder / value).absolute()
    return tuple(_in_folder(folder, item) for item in value) if isinstance(value, tuple) else value
