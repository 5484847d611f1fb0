"""Features as rows of channels with zeros between them, and weights as matrices, as `kernels` take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from encoder_worker.vae.doubling import merged_weights

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = torch.finfo(FLOAT8).max
#: Normalised activations are multiplied by this before they become 8-bit: values from 0.002 to 56 keep all
#: their digits.
ACTIVATION_FACTOR = 8.0


@dataclass(frozen=True)
class Plane:
    """`count` frames of h × w positions as rows: each line has one zero after it, each frame a line of zeros.

    Left of a line's first position lies the zero that ends the line before, so one column and
    one line are border for both their neighbours. A frame has few rows beyond the picture's: with a border of
    its own and frames padded to whole tiles, four frames of 64² made 288 tiles of 128 × 256 for 512 columns.
    So they make 264, two for each of an H200's multiprocessors, and 8 of border alone.
    """

    count: int
    h: int
    w: int

    @property
    def frame_rows(self) -> int:
        return (self.h + 1) * (self.w + 1)

    @property
    def rows(self) -> int:
        return self.count * self.frame_rows

    @property
    def doubled(self) -> Plane:
        return Plane(self.count, 2 * self.h, 2 * self.w)

    def tiles(self, size: int) -> int:
        """Tiles of `size` rows that hold all of a frame's rows. No tile spans two frames."""
        return -(-self.frame_rows // size)

    def framed(self, x: Tensor) -> Tensor:
        """Rows (rows, C) → a view (count, h+1, w+1, C)."""
        return x.view(self.count, self.h + 1, self.w + 1, -1)

    def inner(self, x: Tensor) -> Tensor:
        """Rows (rows, C) → a view (count, h, w, C) of the picture's positions."""
        return self.framed(x)[:, :-1, :-1]

    def clear_border(self, x: Tensor) -> None:
        framed = self.framed(x)
        framed[:, -1].zero_()
        framed[:, :, -1].zero_()


@dataclass(frozen=True)
class Features:
    """Rows (plane.rows, C) and, where a GroupNorm follows, its sums (count, slots, groups, 2)."""

    plane: Plane
    rows: Tensor
    sums: Tensor | None = None


@dataclass(frozen=True)
class Weights:
    """A convolution's: matrix (phases·outputs, taps·inputs), bias and scale (outputs,) float32."""

    matrix: Tensor
    bias: Tensor
    scale: Tensor | None
    outputs: int
    inputs: int
    taps: int
    phases: int = 1


def pack(conv: nn.Conv2d | nn.Linear, dtype: torch.dtype, *, eight_bit: bool = False) -> Weights:
    """A 3×3 or 1×1 convolution's weights as `kernels.conv_kernel` wants them."""
    weight = conv.weight.detach().float()
    weight = weight[:, :, None, None] if weight.ndim == 2 else weight
    outputs, inputs, high, wide = weight.shape
    matrix = weight.permute(0, 2, 3, 1).reshape(outputs, high * wide * inputs)
    return _weights(matrix, conv, dtype, inputs, high * wide, 1, eight_bit)


def pack_doubling(conv: nn.Conv2d, dtype: torch.dtype) -> Weights:
    """Weights of the four 2×2 convolutions that equal doubling the picture and then `conv` (3×3)."""
    merged = merged_weights(conv.weight.detach().float())
    inputs = conv.in_channels
    matrix = merged.permute(0, 1, 2, 4, 5, 3).reshape(4 * conv.out_channels, 4 * inputs)
    return _weights(matrix, conv, dtype, inputs, 4, 4, False)


def _weights(
    matrix: Tensor, conv: Any, dtype: torch.dtype, inputs: int, taps: int, phases: int, eight_bit: bool
) -> Weights:
    outputs = len(matrix) // phases
    bias = matrix.new_zeros(outputs) if conv.bias is None else conv.bias.detach().float()
    scale = None
    if eight_bit:
        largest = matrix.abs().amax(dim=1).clamp_min(1e-12)
        matrix = matrix * (FLOAT8_MAX / largest)[:, None]
        scale = largest / (FLOAT8_MAX * ACTIVATION_FACTOR)
        dtype = FLOAT8
    return Weights(matrix.to(dtype).contiguous(), bias, scale, outputs, inputs, taps, phases)
