"""The encoder half of a VAE folder: the reference picture to scaled latents.

`ENCODERS` maps the folder's `_class_name` to how its encoder is built; a new kind is one entry.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

from gpu_worker.avatars.lite_encoder import LiteEncoder
from protocol.model.checkpoint import CheckpointError, load_into, modern_vae_keys, read_state_dict
from protocol.model.config import ConfigError, latent_scaling, read_json

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
Config = Mapping[str, Any]


class VaeEncoder(nn.Module):
    """Pictures to the mean of their latents. Parameters are the folder's `encoder.*` and `quant_conv.*`.

    channels: of the latents. factor: picture side over latent side. scaling_factor: what the mean is
    multiplied by, and what the decoder divides by.
    """

    def __init__(
        self, config: Config, levels: int, encoder: nn.Module, quant_conv: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.quant_conv = quant_conv
        self.channels = int(config["latent_channels"])
        self.factor = 2 ** (levels - 1)
        self.scaling_factor, self.shift_factor = latent_scaling(config)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in -1..1 → scaled latents (N, C, h, w)."""
        moments = self.encoder(pictures)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        # The mean comes first; an encoder without a variance has nothing else.
        return (moments[:, : self.channels] - self.shift_factor) * self.scaling_factor


def _kl(config: Config) -> VaeEncoder:
    vae = AutoencoderKL.from_config(dict(config))
    return VaeEncoder(config, len(config["block_out_channels"]), vae.encoder, vae.quant_conv)


def _tiny(config: Config) -> VaeEncoder:
    vae = AutoencoderTiny.from_config(dict(config))
    return VaeEncoder(config, len(config["encoder_block_out_channels"]), vae.encoder)


def _lite(config: Config) -> VaeEncoder:
    return VaeEncoder(config, len(config["encoder_widths"]), LiteEncoder(config).encoder)


ENCODERS: dict[str, Callable[[Config], VaeEncoder]] = {
    "AutoencoderKL": _kl,
    "AutoencoderTiny": _tiny,
    "AutoencoderLite": _lite,
}


def load_vae_encoder(folder: Path, class_name: str | None = None) -> VaeEncoder:
    """The encoder of a VAE folder, float32 on the CPU, in evaluation mode.

    class_name overrides the folder's `_class_name`. Raises ConfigError or CheckpointError naming file and
    key.
    """
    file = folder / "config.json"
    config = read_json(file)
    name = class_name or config.get("_class_name")
    if name not in ENCODERS:
        raise ConfigError(f"{file}: _class_name: {name!r} is not one of {', '.join(ENCODERS)}")
    try:
        # Built without values, since all of them come from the file.
        with torch.device("meta"):
            encoder = ENCODERS[name](config)
    except KeyError as error:
        raise ConfigError(f"{file}: {error.args[0]} is missing") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{file}: not a configuration of {name}: {error}") from error
    weights = next((folder / candidate for candidate in WEIGHTS if (folder / candidate).is_file()), None)
    if weights is None:
        raise CheckpointError(f"{folder}: holds neither {' nor '.join(WEIGHTS)}")
    state = modern_vae_keys(read_state_dict(weights))
    decoder = ("decoder.*", "post_quant_conv.*")
    load_into(encoder, state, file=weights, allow_unexpected=decoder, dtype=torch.float32)
    return encoder.eval().requires_grad_(False)
