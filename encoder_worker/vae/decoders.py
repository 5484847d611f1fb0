"""The decoder half of a VAE folder: diffusers' AutoencoderKL or AutoencoderTiny, or our AutoencoderLite.

`DECODERS` maps the folder's `_class_name` to how its decoder is built; a new kind is one entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from encoder_worker.vae.lite_decoder import LiteDecoder
from protocol.model.checkpoint import CheckpointError, load_into, modern_vae_keys, read_state_dict
from protocol.model.config import latent_scaling

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")


class Decoder(nn.Module):
    """Unscaled latents (N, C, h, w) → pictures (N, 3, H, W), nominally in -1..1."""

    kind: str
    channels: int
    """Latent channels."""
    factor: int
    """Picture side over latent side."""
    scaling: float
    """What the encoder multiplied by; latents are divided by it first."""
    shift: float
    """Added after the division."""

    def __init__(self, config: Mapping[str, Any], factor: int) -> None:
        super().__init__()
        self.kind = config["_class_name"]
        self.channels = int(config["latent_channels"])
        self.factor = factor
        self.scaling, self.shift = latent_scaling(config)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class KLDecoder(Decoder):
    """diffusers' AutoencoderKL without its encoder."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        from diffusers import AutoencoderKL

        super().__init__(config, 2 ** (len(config["block_out_channels"]) - 1))
        with torch.device("meta"):
            vae = AutoencoderKL.from_config(dict(config))
        self.decoder = vae.decoder
        self.post_quant_conv = vae.post_quant_conv

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        if self.post_quant_conv is not None:
            latents = self.post_quant_conv(latents)
        pictures: torch.Tensor = self.decoder(latents)
        return pictures


class TinyDecoder(Decoder):
    """diffusers' AutoencoderTiny without its encoder."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        from diffusers import AutoencoderTiny

        super().__init__(config, 2 ** (len(config["decoder_block_out_channels"]) - 1))
        with torch.device("meta"):
            vae = AutoencoderTiny.from_config(dict(config))
        self.decoder = vae.decoder

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        pictures: torch.Tensor = self.decoder(latents)
        return pictures


class LiteVaeDecoder(Decoder):
    """The bundled model's own decoder."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config, 2 ** len(config["decoder_widths"]))
        self.decoder = LiteDecoder(config)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        pictures: torch.Tensor = self.decoder(latents)
        return pictures


DECODERS: dict[str, Callable[[Mapping[str, Any]], Decoder]] = {
    "AutoencoderKL": KLDecoder,
    "AutoencoderTiny": TinyDecoder,
    "AutoencoderLite": LiteVaeDecoder,
}


def load_decoder(folder: str | Path) -> Decoder:
    """The decoder of a VAE folder (`config.json` and weights), float32 on the CPU, eval.

    Raises:
        CheckpointError: a file is missing or damaged, a key is missing, left over or of the wrong shape;
            names file and key.
    """
    folder = Path(folder)
    config_file = folder / "config.json"
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{config_file}: cannot be read: {error}") from error
    name = config.get("_class_name") if isinstance(config, dict) else None
    if name not in DECODERS:
        raise CheckpointError(
            f"{config_file}: _class_name is {name!r}; the encoder worker knows {', '.join(DECODERS)}"
        )
    try:
        decoder = DECODERS[name](config)
    except (KeyError, ValueError, TypeError) as error:
        raise CheckpointError(f"{config_file}: not a configuration of {name}: {error!r}") from error
    files = [folder / file for file in WEIGHTS if (folder / file).is_file()]
    if not files:
        raise CheckpointError(f"{folder}: holds neither {WEIGHTS[0]} nor {WEIGHTS[1]}")
    state = modern_vae_keys(read_state_dict(files[0]))
    half = {key: value for key, value in state.items() if not key.startswith(("encoder.", "quant_conv."))}
    load_into(decoder, half, file=files[0], dtype=torch.float32)
    return decoder.eval().requires_grad_(False)
