"""A VAE's folder (`config.json` and weights), read alike by both workers.

The GPU worker builds the encoder half and an encoder worker the decoder half. This module decides
whatever both must agree on: the class, the size of latents, their scaling, the weights file and its keys.
Importing this module does not import torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from protocol.model.config import ConfigError, ModelConfig, read_json

if TYPE_CHECKING:
    from torch import nn

Half = Literal["encoder", "decoder"]
M = TypeVar("M", bound="nn.Module")

CONFIG_FILE = "config.json"
WEIGHTS_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")

#: Folder of a small decoder beside the model's VAE, as `huggingface-cli download madebyollin/taesd` makes it.
SMALL_FOLDER = "taesd"

#: How the keys of each half begin in the weights file.
HALF_PREFIXES: Mapping[Half, tuple[str, ...]] = {
    "encoder": ("encoder.", "quant_conv."),
    "decoder": ("decoder.", "post_quant_conv."),
}


@dataclass(frozen=True)
class VaeClass:
    """A class of VAE that both workers can build.

    Attributes:
        widths: the keys of `config.json` that list a half's widths. To each belongs the number of listed
            levels that do not double the resolution.
        scaling_factor: multiplies latents where `config.json` does not state a factor.
    """

    widths: tuple[tuple[str, int], ...]
    scaling_factor: float = 1.0


#: The classes by their names in `config.json` (`_class_name`) and in a model's configuration (`vae_class`).
#: diffusers' files of Stable Diffusion's first VAEs state no factor. AutoencoderKL's default is theirs.
VAE_CLASSES: Mapping[str, VaeClass] = {
    "AutoencoderKL": VaeClass((("block_out_channels", 1),), 0.18215),
    "AutoencoderTiny": VaeClass((("encoder_block_out_channels", 1), ("decoder_block_out_channels", 1))),
    "AutoencoderLite": VaeClass((("encoder_widths", 1), ("decoder_widths", 0))),
}


@dataclass(frozen=True)
class VaeFolder:
    """A VAE folder whose configuration has been read.

    Attributes:
        path: the folder.
        config: its `config.json`, with the class that counts as `_class_name`.
    """

    path: Path
    config: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path, vae_class: str | None = None) -> VaeFolder:
        """Read a folder's configuration.

        Args:
            path: the folder.
            vae_class: the class to build, whatever the folder's `_class_name` says. None follows it.

        Raises:
            ConfigError: `config.json` cannot be read, or the class is not of `VAE_CLASSES`.
        """
        file = path / CONFIG_FILE
        config = read_json(file)
        key, name = ("vae_class", vae_class) if vae_class else ("_class_name", config.get("_class_name"))
        if name not in VAE_CLASSES:
            raise ConfigError(f"{file}: {key}: {name!r} is not one of {', '.join(VAE_CLASSES)}")
        return cls(path, {**config, "_class_name": name})

    @classmethod
    def of(cls, model: ModelConfig) -> VaeFolder:
        """The folder of a model, with the class that its configuration names. Raises ConfigError."""
        return cls.open(model.pretrained_vae_path, model.vae_class)

    @classmethod
    def small_of(cls, model: ModelConfig) -> VaeFolder:
        """The folder of `--decoder tiny`: `SMALL_FOLDER` beside the model's VAE.

        Raises:
            ConfigError: it is not there, or its latents are not those of the model's VAE.
        """
        own = cls.of(model)
        small = cls.open(own.path.parent / SMALL_FOLDER)
        if (small.latent_channels, small.factor) != (own.latent_channels, own.factor):
            raise ConfigError(
                f"{small.path}: --decoder tiny: latents of {small.latent_channels} channels and"
                f" 1/{small.factor} size; the model's VAE has {own.latent_channels} and 1/{own.factor}"
            )
        return small

    @property
    def class_name(self) -> str:
        """The class's name, a key of `VAE_CLASSES`."""
        name: str = self.config["_class_name"]
        return name

    @property
    def latent_channels(self) -> int:
        """Channels of a latent. Raises ConfigError where `config.json` does not say it."""
        channels = self.config.get("latent_channels")
        if not isinstance(channels, int) or channels < 1:
            raise ConfigError(f"{self.path / CONFIG_FILE}: latent_channels: {channels!r} is no count")
        return channels

    @property
    def factor(self) -> int:
        """A picture's side over its latent's. Raises ConfigError where the two halves differ."""
        with _naming(self):
            return vae_factor(self.config)


@contextmanager
def _naming(folder: VaeFolder) -> Iterator[None]:
    """Turns errors of building from `config.json` into a ConfigError that names it."""
    file = folder.path / CONFIG_FILE
    try:
        yield
    except KeyError as error:
        raise ConfigError(f"{file}: {error.args[0]} is missing") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{file}: not a configuration of {folder.class_name}: {error}") from error


def vae_factor(config: Mapping[str, Any]) -> int:
    """A picture's side over its latent's, from the widths of a VAE's `config.json`.

    Raises:
        KeyError: the widths are missing.
        ValueError: the widths of the two halves differ.
    """
    widths = VAE_CLASSES[config["_class_name"]].widths
    factors = {key: 1 << (len(config[key]) - offset) for key, offset in widths if key in config}
    if not factors:
        raise KeyError(widths[0][0])
    if len(set(factors.values())) > 1:
        told = " and ".join(f"{factor} times by {key}" for key, factor in factors.items())
        raise ValueError(f"latents are smaller {told}")
    return next(iter(factors.values()))


def latent_scaling(config: Mapping[str, Any]) -> tuple[float, float]:
    """(factor, shift) of a VAE's `config.json`: the denoiser's latents are (latents - shift) · factor."""
    known = VAE_CLASSES.get(config.get("_class_name", ""), VaeClass(()))
    factor, shift = config.get("scaling_factor"), config.get("shift_factor")
    return (
        float(known.scaling_factor if factor is None else factor),
        float(0.0 if shift is None else shift),
    )


def load_half(folder: VaeFolder, half: Half, builders: Mapping[str, Callable[[Mapping[str, Any]], M]]) -> M:
    """One half of a VAE with its weights: float32, on the CPU, for evaluation, without gradients.

    Args:
        folder: the VAE.
        half: the half that the builders make.
        builders: make the half from `config.json`, by the names of `VAE_CLASSES`. They are called with
            torch's meta device as the default, so no values are drawn. The half's parameters are named as
            in the weights file.

    Raises:
        ConfigError: the class cannot be built from `config.json`. Names the file and the key.
        CheckpointError: the weights are missing, damaged or do not fit. Names the file and the key.
    """
    # Here, because the settings and the pass-through engine read a folder's numbers without torch.
    import torch

    from protocol.model.checkpoint import find_weights, load_into, modern_vae_keys, read_state_dict

    with _naming(folder), torch.device("meta"):
        module = builders[folder.class_name](folder.config)
    weights = find_weights(folder.path, WEIGHTS_FILES)
    other = HALF_PREFIXES["decoder" if half == "encoder" else "encoder"]
    state = modern_vae_keys(read_state_dict(weights))
    own = {key: value for key, value in state.items() if not key.startswith(other)}
    load_into(module, own, file=weights, dtype=torch.float32)
    return module.eval().requires_grad_(False)


def has_small_decoder(model: ModelConfig) -> bool:
    """Whether `--decoder tiny` can serve a model: its VAE is Stable Diffusion's and the files are there."""
    try:
        small = VaeFolder.small_of(model)
        return VaeFolder.of(model).class_name == "AutoencoderKL" and any(
            (small.path / name).is_file() for name in WEIGHTS_FILES
        )
    except ConfigError:
        return False
