"""The decoder half of a VAE folder: AutoencoderKL, AutoencoderTiny, or our AutoencoderLite.

`DECODERS` maps a class's name to the module that is its decoder. The class is chosen, and the folder read,
by `protocol.model.vae_folder`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from encoder_worker.vae.lite_decoder import LiteDecoder
from protocol.model.config import ConfigError
from protocol.model.vae_folder import VaeFolder, latent_scaling, load_half, vae_factor
from protocol.model.vae_network import UnusualVae, kl_decoder, tiny_decoder


class Decoder(nn.Module):
    """Unscaled latents (N, C, h, w) → pictures (N, 3, H, W), nominally in -1..1."""

    kind: str
    #: Latent channels.
    channels: int
    #: Picture side over latent side.
    factor: int
    #: The encoder's factor. Latents are divided by it first.
    scaling: float
    #: Added after the division.
    shift: float

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.kind = config["_class_name"]
        self.channels = int(config["latent_channels"])
        self.factor = vae_factor(config)
        self.scaling, self.shift = latent_scaling(config)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class KLDecoder(Decoder):
    """AutoencoderKL without its encoder."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.decoder: Any
        self.post_quant_conv: Any
        with torch.device("meta"):  # its values come from the file
            try:
                self.decoder, self.post_quant_conv = kl_decoder(config)
            except UnusualVae:
                from diffusers import AutoencoderKL

                vae = AutoencoderKL.from_config(dict(config))
                self.decoder, self.post_quant_conv = vae.decoder, vae.post_quant_conv

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        if self.post_quant_conv is not None:
            latents = self.post_quant_conv(latents)
        pictures: torch.Tensor = self.decoder(latents)
        return pictures


class TinyDecoder(Decoder):
    """AutoencoderTiny without its encoder."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.decoder: Any
        with torch.device("meta"):  # its values come from the file
            try:
                self.decoder = tiny_decoder(config)
            except UnusualVae:
                from diffusers import AutoencoderTiny

                self.decoder = AutoencoderTiny.from_config(dict(config)).decoder

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        pictures: torch.Tensor = self.decoder(latents)
        return pictures


class LiteVaeDecoder(Decoder):
    """The bundled model's own decoder."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        self.decoder = LiteDecoder(config)
        #: Whether the finer head draws.
        self.is_fine = False

    def draw_fine(self) -> None:
        """Draw by the finer head from now on, pictures of twice the side.

        Raises:
            ConfigError: there is none.
        """
        if self.decoder.fine is None:
            raise ConfigError("this VAE has no head for pictures of twice the side")
        self.is_fine = True
        self.factor *= 2

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        features = self.decoder.features(latents)
        pictures: torch.Tensor
        if self.is_fine and self.decoder.fine is not None:
            pictures = self.decoder.fine(features)
        else:
            pictures = self.decoder.plain(features)
        return pictures


DECODERS: dict[str, Callable[[Mapping[str, Any]], Decoder]] = {
    "AutoencoderKL": KLDecoder,
    "AutoencoderTiny": TinyDecoder,
    "AutoencoderLite": LiteVaeDecoder,
}


def load_decoder(folder: VaeFolder, *, fine: bool = False) -> Decoder:
    """The decoder of a VAE folder, float32 on the CPU, in evaluation mode.

    Args:
        folder: the VAE.
        fine: whether its finer head is to draw, pictures of twice the side.

    Raises:
        ConfigError, CheckpointError: a file does not fit. The text names the file and the key.
    """
    decoder = load_half(folder, "decoder", DECODERS)
    if fine:
        if not isinstance(decoder, LiteVaeDecoder):
            raise ConfigError(f"{folder.path}: {folder.class_name} has no finer head")
        decoder.draw_fine()
    return decoder
