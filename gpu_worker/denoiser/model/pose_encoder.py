"""The pose encoder: a pose map becomes features that are added after the denoiser's input convolution."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PoseEncoder(nn.Module):
    """Convolutions with SiLU, stride 2 at every width change (official `PoseEncoder`).

    `conv_out` starts at zero, so that an untrained encoder changes nothing.
    """

    def __init__(
        self,
        conditioning_embedding_channels: int,
        conditioning_channels: int = 3,
        block_out_channels: Sequence[int] = (16, 32, 96, 256),
    ) -> None:
        super().__init__()
        widths = list(block_out_channels)
        self.conv_in = nn.Conv2d(conditioning_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for before, after in pairwise(widths):
            self.blocks.append(nn.Conv2d(before, before, 3, padding=1))
            self.blocks.append(nn.Conv2d(before, after, 3, padding=1, stride=2))
        self.conv_out = nn.Conv2d(widths[-1], conditioning_embedding_channels, 3, padding=1)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, maps: Tensor) -> Tensor:
        """Pose maps (B, 3, F, H, W) in 0..1 → features (B, c0, F, H/8, W/8), with four widths."""
        batch, _, frames, _, _ = maps.shape
        x = maps.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = F.silu(self.conv_in(x))
        for conv in self.blocks:
            x = F.silu(conv(x))
        features: Tensor = self.conv_out(x).unflatten(0, (batch, frames))
        return features.transpose(1, 2)
