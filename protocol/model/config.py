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

from protocol.model.file_damage import stand_in_error
from protocol.process.settings import Settings, SettingsError

#: Short names of dtypes in `weight_dtype`, and the names that settings and torch use.
DTYPE_NAMES = {"fp16": "float16", "fp32": "float32", "bf16": "bfloat16"}
#: Values of `whisper_window`: audio padded to Whisper's 30 s, or encoded alone.
WHISPER_WINDOWS = ("padded", "short")
#: Sampling steps and guidance of the official accelerated model (`infer_acc.py`).
ACCELERATED_SAMPLING = (6, 1.0)
#: The same of the plain model (`infer.py`).
PLAIN_SAMPLING = (30, 2.5)
#: Width and height of official pictures, in pixels.
OFFICIAL_SIZE = 768
#: Frames by which the official pipeline rotates its windows at each sampling step.
OFFICIAL_WINDOW_SHIFT = 3


class ConfigError(SettingsError):
    """A configuration that cannot be used. The message names the file and the key."""


@dataclass(frozen=True)
class ModelConfig:
    """The files of a model, and how it is sampled. Paths are absolute and exist.

    Attributes:
        path: the configuration file.
        name: the model's name, for status and logs.
        pretrained_base_model_path: folder with the base UNet's `config.json`.
        pretrained_vae_path: folder of the VAE (see `vae_folder`).
        denoising_unet_path: weights of the denoiser.
        motion_module_path: weights of its motion modules. None where the denoiser's file holds them.
        reference_unet_path: weights of the reference network.
        pose_encoder_path: weights of the pose encoder.
        audio_model_path: weights of Whisper, a file or a folder.
        inference_config: `unet_additional_kwargs`, `noise_scheduler_kwargs` and, optionally,
            `pose_encoder_kwargs`.
        weight_dtype: float16, bfloat16 or float32.
        steps: sampling steps. Where the file names none, those of the official model (see `is_accelerated`).
        cfg: guidance scale, 1.0 for no guidance. Where the file names none, that of the official model.
        width: of the pictures, in pixels, a multiple of 8.
        height: of the pictures, in pixels, a multiple of 8.
        whisper_window: one of `WHISPER_WINDOWS`. Official weights expect "padded".
        window_shift: frames by which a clip rotates at each step.
        vae_class: the VAE's class, whatever its `config.json` says. None follows that file.
        prefer_fine: whether pictures of twice the side are tried where the settings name no size. It is for
            a VAE with a finer head that draws better than a browser enlarges.
        audio_adapter_path: corrections to Whisper's weights. None where the model was trained without.
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
    steps: int = ACCELERATED_SAMPLING[0]
    cfg: float = ACCELERATED_SAMPLING[1]
    width: int = OFFICIAL_SIZE
    height: int = OFFICIAL_SIZE
    whisper_window: str = "padded"
    window_shift: int = OFFICIAL_WINDOW_SHIFT
    vae_class: str | None = None
    audio_adapter_path: Path | None = None
    prefer_fine: bool = False

    @classmethod
    def load(cls, path: Path | str) -> ModelConfig:
        """Read and check a configuration.

        Raises:
            ConfigError: a value or a file is missing or wrong. Names the file and the key.
        """
        return _ConfigReader(Path(path).absolute()).read()

    @property
    def is_accelerated(self) -> bool:
        """Whether the denoiser is the accelerated one, by its file's name: `denoising_unet_acc.pth`."""
        return _is_accelerated(self.denoising_unet_path)

    def asked_size(self, settings: Settings) -> tuple[int, int]:
        """(width, height) of the pictures, in pixels: those of the settings, else the model's."""
        return settings.width or self.width, settings.height or self.height

    def picture_size(self, settings: Settings) -> tuple[int, int]:
        """(width, height) that the denoiser works for, in pixels.

        It is `asked_size`, or half of it where the VAE's finer head makes the pictures.
        """
        return (self.width, self.height) if self._asks_fine(settings) else self.asked_size(settings)

    def drawn_size(self, settings: Settings, fine: bool) -> tuple[int, int]:
        """(width, height) of the pictures that a head of the VAE makes, in pixels."""
        width, height = self.picture_size(settings)
        return (2 * width, 2 * height) if fine else (width, height)

    def heads(self, settings: Settings) -> tuple[bool, ...]:
        """The heads of the VAE that may draw, the preferred one first: True for the finer one.

        The finer one makes pictures of twice the model's side. --width and --height leave one head. Without
        them it is tried where the model prefers it (`prefer_fine`), unless --fps leaves nothing to try.
        """
        if self._asks_fine(settings):
            return (True,)
        is_open = settings.width is settings.height is settings.fps is None and settings.decoder != "tiny"
        return (True, False) if is_open and self.prefer_fine and self.has_fine_head else (False,)

    def finest_size(self, settings: Settings) -> tuple[int, int]:
        """(width, height) of the pictures where nothing hurries: those of the settings, else the best."""
        is_open = settings.width is None and settings.height is None and settings.decoder != "tiny"
        best = is_open and self.prefer_fine and self.has_fine_head
        return (2 * self.width, 2 * self.height) if best else self.asked_size(settings)

    @property
    def has_fine_head(self) -> bool:
        """Whether the VAE can also draw pictures of twice the side."""
        return "fine_width" in read_json(self.pretrained_vae_path / "config.json")

    def _asks_fine(self, settings: Settings) -> bool:
        twice = 2 * self.width, 2 * self.height
        return self.asked_size(settings) == twice and self.has_fine_head

    def base_unet_config(self) -> dict[str, Any]:
        """The base UNet's `config.json`. Raises ConfigError naming the file."""
        return read_json(_base_unet_file(self.pretrained_base_model_path))

    @property
    def unet_additional_kwargs(self) -> Mapping[str, Any]:
        """Options of the denoiser that the base UNet does not have, such as its motion modules."""
        kwargs: Mapping[str, Any] = self.inference_config["unet_additional_kwargs"]
        return kwargs

    @property
    def noise_scheduler_kwargs(self) -> Mapping[str, Any]:
        """Options of the sampler, under diffusers' names."""
        kwargs: Mapping[str, Any] = self.inference_config["noise_scheduler_kwargs"]
        return kwargs


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file. Raises ConfigError naming it."""
    _refuse_stand_in(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: holds no JSON object")
    return value


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML mapping from a file. Raises ConfigError naming it."""
    _refuse_stand_in(path)
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except Exception as error:  # beside its own errors yaml raises KeyError and others, as for `!!bool x`
        raise ConfigError(f"{path}: cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{path}: holds no YAML mapping")
    return value


def _refuse_stand_in(path: Path) -> None:
    stand_in = stand_in_error(path)
    if stand_in is not None:
        raise ConfigError(stand_in)


def _is_accelerated(denoiser: Path) -> bool:
    return "acc" in denoiser.stem.split("_")


def _base_unet_file(base: Path) -> Path:
    """`unet/config.json` of a whole base model, or `config.json` of its UNet alone."""
    nested = base / "unet" / "config.json"
    return nested if nested.exists() or not (base / "config.json").exists() else base / "config.json"


class _ConfigReader:
    """Reads one configuration file, key by key, with errors that name the key."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.values = read_yaml(path)

    def read(self) -> ModelConfig:
        denoiser = self._existing("denoising_unet_path")
        steps, cfg = ACCELERATED_SAMPLING if _is_accelerated(denoiser) else PLAIN_SAMPLING
        config = ModelConfig(
            path=self.path,
            name=self._text("name", self.path.stem),
            pretrained_base_model_path=self._existing("pretrained_base_model_path"),
            pretrained_vae_path=self._existing("pretrained_vae_path"),
            denoising_unet_path=denoiser,
            motion_module_path=self._optional("motion_module_path"),
            reference_unet_path=self._existing("reference_unet_path"),
            pose_encoder_path=self._existing("pose_encoder_path"),
            audio_model_path=self._existing("audio_model_path"),
            inference_config=self._inference(),
            weight_dtype=self._dtype(),
            steps=int(self._number("steps", steps, 1, 1000, whole=True)),
            cfg=self._number("cfg", cfg, 1, 100),
            width=self._side("width"),
            height=self._side("height"),
            whisper_window=self._choice("whisper_window", "padded", WHISPER_WINDOWS),
            window_shift=int(self._number("window_shift", OFFICIAL_WINDOW_SHIFT, 0, 1000, whole=True)),
            vae_class=self._text("vae_class", "") or None,
            audio_adapter_path=self._optional("audio_adapter_path"),
            prefer_fine=self._truth("prefer_fine"),
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

    def _truth(self, key: str) -> bool:
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            raise ConfigError(f"{self.path}: {key}: {value!r} is neither true nor false")
        return value

    def _dtype(self) -> str:
        value = self._text("weight_dtype", "fp16")
        value = DTYPE_NAMES.get(value, value)
        if value not in DTYPE_NAMES.values():
            known = ", ".join((*DTYPE_NAMES, *DTYPE_NAMES.values()))
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
