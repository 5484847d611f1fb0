"""The encoder half of a VAE folder: the reference picture to scaled latents.

`ENCODERS` maps a class's name to the function that builds its encoder. The class is chosen, and the folder
read, by `protocol.model.vae_folder`. diffusers' import takes seconds and 210 MB, so it stands where a
configuration needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from protocol.model.vae_folder import VaeFolder, latent_scaling, load_half, vae_factor
from protocol.model.vae_network import UnusualVae, kl_encoder, tiny_encoder

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
    try:
        encoder, quant_conv = kl_encoder(config)
    except UnusualVae:
        from diffusers import AutoencoderKL

        vae = AutoencoderKL.from_config(dict(config))
        encoder, quant_conv = vae.encoder, vae.quant_conv
    return VaeEncoder(config, vae_factor(config), encoder, quant_conv)


def _tiny(config: Config) -> VaeEncoder:
    try:
        encoder = tiny_encoder(config)
    except UnusualVae:
        from diffusers import AutoencoderTiny

        encoder = AutoencoderTiny.from_config(dict(config)).encoder
    return VaeEncoder(config, vae_factor(config), encoder)


def _lite(config: Config) -> VaeEncoder:
    from gpu_worker.avatars.lite_encoder import LiteEncoder

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


class LazyVaeEncoder(VaeEncoder):
    """The encoder of a VAE folder, loaded when the first picture is encoded.

    Args:
        folder: the VAE.
        device: where it is to run.

    Raises:
        ConfigError: a number is missing in `config.json`.
    """

    def __init__(self, folder: VaeFolder, device: torch.device) -> None:
        nn.Module.__init__(self)
        self._folder = folder
        self._device = device
        self._loaded: VaeEncoder | None = None
        self.channels = folder.latent_channels
        self.factor = folder.factor
        self.scaling_factor, self.shift_factor = latent_scaling(folder.config)

    def forward(self, pictures: Tensor) -> Tensor:
        """As `VaeEncoder`. Raises as `load_vae_encoder` at the first call."""
        if self._loaded is None:
            loaded = load_vae_encoder(self._folder).to(self._device)
            self._loaded = loaded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        latents: Tensor = self._loaded(pictures)
        return latents
