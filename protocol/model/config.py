"""The model's configuration file: the official `infer_acc.yaml` layout, which the bundled model uses too.

Only paths and plain values are read here; weights are read by the stages that need them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from protocol.model.lfs_pointer import lfs_pointer_error
from protocol.process.settings import Settings, SettingsError

DTYPES = {"fp16": "float16", "fp32": "float32", "bf16": "bfloat16"}
WHISPER_WINDOWS = ("padded", "short")
OFFICIAL_STEPS = 6
OFFICIAL_SIZE = 768
# The official pipeline rotates its windows by this many frames at each sampling step.
OFFICIAL_WINDOW_SHIFT = 3


class ConfigError(SettingsError):
    """A configuration that cannot be used; the message names the file and the key."""


@dataclass(frozen=True)
class ModelConfig:
    """What a model consists of and how it is sampled.

    Paths are absolute and exist. `inference_config` holds `unet_additional_kwargs`, `noise_scheduler_kwargs`
    and optionally `pose_encoder_kwargs`. `motion_module_path` is None where the denoiser's file holds the
    motion modules. `weight_dtype` is float16, bfloat16 or float32. `whisper_window` says whether audio is
    padded to Whisper's 30 s (as official weights expect) or encoded alone; `audio_adapter_path` names
    corrections to Whisper's weights, where the model was trained with any.
    """

    path: Path
    name: str
    pretrained_base_model_path: Path
    pretrained_vae_path: Path
    denoising_unet_path: Path
    motion_module_path: Path | None
    reference_unet_path: Path
    pose_encoder_path: Path
    audio_model_path: Path
    inference_config: Mapping[str, Any] = field(repr=False)
    weight_dtype: str = "float16"
    steps: int = OFFICIAL_STEPS
    cfg: float = 1.0
    width: int = OFFICIAL_SIZE
    height: int = OFFICIAL_SIZE
    whisper_window: str = "padded"
    window_shift: int = OFFICIAL_WINDOW_SHIFT
    vae_class: str | None = None
    audio_adapter_path: Path | None = None

    @classmethod
    def load(cls, path: Path | str) -> ModelConfig:
        """Read and check a configuration. Raises ConfigError naming the file and the key."""
        return _Reader(Path(path).absolute()).read()

    def picture_size(self, settings: Settings) -> tuple[int, int]:
        """(width, height) of the pictures, in pixels: those of the settings, else the model's."""
        return settings.width or self.width, settings.height or self.height

    def base_unet_config(self) -> dict[str, Any]:
        """The base UNet's `config.json`. Raises ConfigError naming the file."""
        return read_json(_base_unet_file(self.pretrained_base_model_path))

    @property
    def unet_additional_kwargs(self) -> Mapping[str, Any]:
        kwargs: Mapping[str, Any] = self.inference_config["unet_additional_kwargs"]
        return kwargs

    @property
    def noise_scheduler_kwargs(self) -> Mapping[str, Any]:
        kwargs: Mapping[str, Any] = self.inference_config["noise_scheduler_kwargs"]
        return kwargs


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ConfigError naming it."""
    _refuse_lfs_pointer(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: holds no JSON object")
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping from a file. Raises ConfigError naming it."""
    _refuse_lfs_pointer(path)
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: holds no YAML mapping")
    return value


def _refuse_lfs_pointer(path: Path) -> None:
    pointer = lfs_pointer_error(path)
    if pointer is not None:
        raise ConfigError(pointer)


def _base_unet_file(base: Path) -> Path:
    """`unet/config.json` of a whole base model, or `config.json` of its UNet alone."""
    nested = base / "unet" / "config.json"
    return nested if nested.exists() or not (base / "config.json").exists() else base / "config.json"


class _Reader:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.values = read_yaml(path)

    def read(self) -> ModelConfig:
        config = ModelConfig(
            path=self.path,
            name=self._text("name", self.path.stem),
            pretrained_base_model_path=self._existing("pretrained_base_model_path"),
            pretrained_vae_path=self._existing("pretrained_vae_path"),
            denoising_unet_path=self._existing("denoising_unet_path"),
            motion_module_path=self._optional("motion_module_path"),
            reference_unet_path=self._existing("reference_unet_path"),
            pose_encoder_path=self._existing("pose_encoder_path"),
            audio_model_path=self._existing("audio_model_path"),
            inference_config=self._inference(),
            weight_dtype=self._dtype(),
            steps=int(self._number("steps", OFFICIAL_STEPS, 1, 1000, whole=True)),
            cfg=self._number("cfg", 1.0, 1, 100),
            width=self._side("width"),
            height=self._side("height"),
            whisper_window=self._choice("whisper_window", "padded", WHISPER_WINDOWS),
            window_shift=int(self._number("window_shift", OFFICIAL_WINDOW_SHIFT, 0, 1000, whole=True)),
            vae_class=self._text("vae_class", "") or None,
            audio_adapter_path=self._optional("audio_adapter_path"),
        )
        for file in (
            _base_unet_file(config.pretrained_base_model_path),
            config.pretrained_vae_path / "config.json",
        ):
            if not file.is_file():
                key = "pretrained_vae_path" if file.parent == config.pretrained_vae_path else None
                raise ConfigError(
                    f"{self.path}: {key or 'pretrained_base_model_path'}: {file} does not exist; "
                    "the folder must hold it, as downloaded"
                )
        return config

    def _existing(self, key: str) -> Path:
        given = Path(self._text(key)).expanduser()
        return self._resolve(key, given)

    def _optional(self, key: str) -> Path | None:
        return None if self.values.get(key) is None else self._existing(key)

    def _resolve(self, key: str, given: Path) -> Path:
        # The official file lies in configs/prompts and names paths from the repository's root, two levels up.
        folder = self.path.parent
        places = dict.fromkeys((folder, folder.parent, folder.parent.parent, Path.cwd()))
        for place in places:
            if (place / given).exists():
                return (place / given).absolute()
        if given.is_absolute():
            raise ConfigError(f"{self.path}: {key}: {given} does not exist")
        tried = ", ".join(str(place) for place in places)
        raise ConfigError(f"{self.path}: {key}: {given} does not exist in any of {tried}")

    def _inference(self) -> Mapping[str, Any]:
        given = self.values.get("inference_config")
        if isinstance(given, Mapping):
            source, values = f"{self.path}: inference_config", dict(given)
        else:
            file = self._existing("inference_config")
            source, values = str(file), read_yaml(file)
        for key in ("unet_additional_kwargs", "noise_scheduler_kwargs"):
            if not isinstance(values.get(key), dict):
                raise ConfigError(f"{source}: {key} is missing or no mapping")
        return values

    def _text(self, key: str, default: str | None = None) -> str:
        value = self.values.get(key, default)
        if value is None:
            raise ConfigError(f"{self.path}: {key} is missing")
        if not isinstance(value, str) or "\0" in value:
            raise ConfigError(f"{self.path}: {key}: {value!r} is no text")
        return value

    def _choice(self, key: str, default: str, choices: tuple[str, ...]) -> str:
        value = self._text(key, default)
        if value not in choices:
            raise ConfigError(f"{self.path}: {key}: {value!r} is not one of {', '.join(choices)}")
        return value

    def _dtype(self) -> str:
        value = self._text("weight_dtype", "fp16")
        value = DTYPES.get(value, value)
        if value not in DTYPES.values():
            known = ", ".join((*DTYPES, *DTYPES.values()))
            raise ConfigError(f"{self.path}: weight_dtype: {value!r} is not one of {known}")
        return value

    def _number(self, key: str, default: float, low: float, high: float, *, whole: bool = False) -> float:
        value = self.values.get(key, default)
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            raise ConfigError(f"{self.path}: {key}: {value!r} is not {kind} from {low} to {high}")
        return value

    def _side(self, key: str) -> int:
        value = int(self._number(key, OFFICIAL_SIZE, 16, 4096, whole=True))
        if value % 8:
            raise ConfigError(f"{self.path}: {key}: {value} is not a multiple of 8")
        return value
