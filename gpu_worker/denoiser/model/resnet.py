"""Residual convolution blocks, up- and down-sampling and the timestep embedding.

Frames are folded into the batch: (B·frames, channels, h, w). The official model normalises each frame on
its own (`use_inflated_groupnorm`), so two-dimensional layers give the same numbers.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ResnetBlock(nn.Module):
    """norm → SiLU → conv → + time → norm → SiLU → conv → + shortcut."""

    def __init__(self, in_channels: int, out_channels: int, time_width: int, groups: int, eps: float) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=eps)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_width, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=eps)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(in_channels, out_channels, 1) if in_channels != out_channels else None

    def forward(self, x: Tensor, time: Tensor, frames: int) -> Tensor:
        """x (B·frames, c, h, w) → (B·frames, out, h, w). `time` (B, time width): the embedding after SiLU."""
        hidden = self.conv1(F.silu(self.norm1(x)))
        shift = self.time_emb_proj(time).repeat_interleave(frames, dim=0)
        hidden = hidden + shift[:, :, None, None]
        out: Tensor = self.conv2(F.silu(self.norm2(hidden)))
        return out + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Downsample(nn.Module):
    """Convolution of stride 2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """x (N, c, h, w) → (N, c, h/2, w/2), rounded up."""
        out: Tensor = self.conv(x)
        return out


class Upsample(nn.Module):
    """Nearest-neighbour up-sampling to `size`, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """x (N, c, h, w) → (N, c, *size)."""
        out: Tensor = self.conv(F.interpolate(x, size=size, mode="nearest"))
        return out


class TimestepEmbedding(nn.Module):
    """Sinusoidal embedding of the timestep (cosines first) and its two linear layers."""

    def __init__(self, channels: int, freq_shift: float) -> None:
        super().__init__()
        self.channels = channels
        self.freq_shift = freq_shift
        self.linear_1 = nn.Linear(channels, 4 * channels)
        self.linear_2 = nn.Linear(4 * channels, 4 * channels)

    def forward(self, timestep: Tensor) -> Tensor:
        """timestep (B,) → (B, 4·channels)."""
        half = self.channels // 2
        # Always in float32: half precision cannot tell neighbouring timesteps apart.
        exponent = torch.arange(half, dtype=torch.float32, device=timestep.device)
        rates = torch.exp(exponent * (-math.log(10000.0) / (half - self.freq_shift)))
        angles = timestep.float()[:, None] * rates
        wave = torch.cat([angles.cos(), angles.sin()], dim=-1).to(self.linear_1.weight.dtype)
        out: Tensor = self.linear_2(F.silu(self.linear_1(wave)))
        return out
