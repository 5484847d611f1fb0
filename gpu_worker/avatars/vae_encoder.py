"""The encoder half of a VAE folder: the reference picture to scaled latents.

`ENCODERS` maps a class's name to the function that builds its encoder. The class is chosen, and the folder
read, by `protocol.model.vae_folder`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from diffusers import AutoencoderKL, AutoencoderTiny
from torch import Tensor, nn

from gpu_worker.avatars.lite_encoder import LiteEncoder
from protocol.model.vae_folder import VaeFolder, latent_scaling, load_half, vae_factor

Config = Mapping[str, Any]


class VaeEncoder(nn.Module):
    """Pictures to the mean of their latents. Its parameters are the folder's `encoder.*` and `quant_conv.*`.

    Args:
        config: the folder's `config.json`.
        factor: picture side over latent side.
        encoder: pictures (N, 3, H, W) → moments, whose first channels are the mean.
        quant_conv: follows the encoder, where the class has one.
    """

    #: Channels of the latents.
    channels: int
    #: Picture side over latent side.
    factor: int
    #: The mean is shifted, then multiplied by this. The decoder divides by it.
    scaling_factor: float

    def __init__(
        self, config: Config, factor: int, encoder: nn.Module, quant_conv: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.quant_conv = quant_conv
        self.channels = int(config["latent_channels"])
        self.factor = factor
        self.scaling_factor, self.shift_factor = latent_scaling(config)

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures (N, 3, H, W) in -1..1 → scaled latents (N, C, h, w)."""
        moments: Tensor = self.encoder(pictures)
        if self.quant_conv is not None:
            moments = self.quant_conv(moments)
        # The mean comes first, and the variance, where the encoder has one, after it.
        return (moments[:, : self.channels] - self.shift_factor) * self.scaling_factor


def _kl(config: Config) -> VaeEncoder:
    vae = AutoencoderKL.from_config(dict(config))
    return VaeEncoder(config, vae_factor(config), vae.encoder, vae.quant_conv)


def _tiny(config: Config) -> VaeEncoder:
    vae = AutoencoderTiny.from_config(dict(config))
    return VaeEncoder(config, vae_factor(config), vae.encoder)


def _lite(config: Config) -> VaeEncoder:
    return VaeEncoder(config, vae_factor(config), LiteEncoder(config).encoder)


ENCODERS: dict[str, Callable[[Config], VaeEncoder]] = {
    "AutoencoderKL": _kl,
    "AutoencoderTiny": _tiny,
    "AutoencoderLite": _lite,
}


def load_vae_encoder(folder: VaeFolder) -> VaeEncoder:
    """The encoder of a VAE folder, float32 on the CPU, in evaluation mode.

    Raises:
        ConfigError, CheckpointError: a file does not fit. The message names the file and the key.
    """
    return load_half(folder, "encoder", ENCODERS)
