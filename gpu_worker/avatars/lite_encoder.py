"""The encoder half of the bundled model's VAE (`AutoencoderLite`).

It runs once per avatar, so it is AutoencoderKL's encoder: the light decoder
(`encoder_worker/vae/lite_decoder.py`) saves time at each frame instead. It is deterministic. Training showed
it no sampling, so its output is the mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from protocol.model.vae_network import KLEncoderNetwork


class LiteEncoder(nn.Module):
    """Pictures to latents.

    Args:
        config: the `config.json` of the VAE folder. Its keys `latent_channels`, `encoder_widths`,
            `encoder_layers_per_block` and `norm_num_groups` count. The latent is 2**(levels - 1) times
            smaller than the picture.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        widths = tuple(config["encoder_widths"])
        self.encoder = KLEncoderNetwork(
            3,
            config["latent_channels"],
            widths,
            config["encoder_layers_per_block"],
            config["norm_num_groups"],
        )

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """Pictures (N, 3, H, W) in -1..1 → the latents' mean (N, C, h, w), unscaled."""
        mean: torch.Tensor = self.encoder(pictures)
        return mean
