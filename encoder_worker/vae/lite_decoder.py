"""The light decoder of the bundled model's VAE (`AutoencoderLite`).

A picture of 256² has sixteen times the positions of a 64² feature map, so a decoder that a CPU can run
12 times in a third of a second must do its work at low resolution. This one halves the width whenever it
doubles the resolution (equal cost per level), grows by 1×1 convolution and pixel shuffle (a ninth of a
3×3 convolution's cost), has no normalisation (each is a pass over memory), and leaves the last doubling
to a pixel shuffle. The residual blocks without normalisation follow the idea of TAESD (Ollin Boer Bohan,
2023); widths and layout are this project's.

A second, finer head makes pictures of twice the side from the same features. It costs a fifth of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """`x + conv(relu(conv(relu(x))))`, (N, width, h, w) → the same shape."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        added: torch.Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
        return x + added


class Grow(nn.Module):
    """(N, width, h, w) → (N, out, 2h, 2w) by a 1×1 convolution and a pixel shuffle."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, out * 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.pixel_shuffle(self.conv(x), 2)


class FineHead(nn.Module):
    """The last level's features (N, width, h, w) → pictures (N, 3, 4h, 4w).

    Args:
        width: channels of the features.
        fine_width: channels at twice their side.
        blocks: residual blocks there.
        kernel: side of the kernel that leads there, 1 or 3.
    """

    def __init__(self, width: int, fine_width: int, blocks: int, kernel: int) -> None:
        super().__init__()
        self.grow = nn.Conv2d(width, fine_width * 4, kernel, padding=kernel // 2)
        self.blocks = nn.ModuleList(ResidualBlock(fine_width) for _ in range(blocks))
        self.conv_out = nn.Conv2d(fine_width, 3 * 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.pixel_shuffle(self.grow(F.relu(x)), 2)
        for block in self.blocks:
            x = block(x)
        return F.pixel_shuffle(self.conv_out(F.relu(x)), 2)


class LiteDecoder(nn.Module):
    """Latents to pictures.

    Args:
        config: the `config.json` of the VAE folder. Its keys are `latent_channels`, `decoder_widths` (one per
            level, coarse to fine) and `decoder_blocks` (residual blocks per level). The picture is
            2**len(decoder_widths) times the latent's size. With `fine_width`, `fine_blocks` and `fine_kernel`
            there is a second head, whose pictures are twice as large (see `FineHead`).
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        widths: Sequence[int] = config["decoder_widths"]
        blocks: Sequence[int] = config["decoder_blocks"]
        if len(widths) != len(blocks):
            raise ValueError(
                f"decoder_widths has {len(widths)} levels and decoder_blocks {len(blocks)}; give one each"
            )
        self.conv_in = nn.Conv2d(config["latent_channels"], widths[0], 3, padding=1)
        levels: list[nn.Module] = []
        for i, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            if i > 0:
                levels.append(Grow(widths[i - 1], width))
            levels.extend(ResidualBlock(width) for _ in range(count))
        self.levels = nn.ModuleList(levels)
        self.conv_out = nn.Conv2d(widths[-1], 3 * 4, 3, padding=1)
        #: The head of pictures of twice the side, where the VAE has one.
        self.fine: FineHead | None = None
        if "fine_width" in config:
            self.fine = FineHead(
                widths[-1], config["fine_width"], config["fine_blocks"], config["fine_kernel"]
            )

    def features(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (N, C, h, w), unscaled → the last level's features, from which either head draws."""
        x: torch.Tensor = self.conv_in(latents)
        for level in self.levels:
            x = level(x)
        return x

    def plain(self, features: torch.Tensor) -> torch.Tensor:
        """Pictures (N, 3, H, W) of `features`, nominally in -1..1 (not clamped)."""
        return F.pixel_shuffle(self.conv_out(F.relu(features)), 2)

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (N, C, h, w), unscaled, → pictures (N, 3, H, W), nominally in -1..1 (not clamped)."""
        return self.plain(self.features(latents))
