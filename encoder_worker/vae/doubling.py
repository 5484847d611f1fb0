"""Doubling a picture by nearest neighbour and a 3×3 convolution after it, as one operation on the small one.

A 3×3 window around row 2y+a of the doubled picture takes three of its rows. For a = 0 they are copies of the
small picture's rows y-1, y and y. For a = 1 they are copies of y, y and y+1. Columns likewise. So each of the
four kinds of pixels is a 2×2 convolution of the small picture whose weights are sums of the given ones. That
is 16 products a small pixel instead of 36, and the same result but for rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def merged_weights(weight: Tensor) -> Tensor:
    """3×3 weights (O, I, 3, 3) → those of the four 2×2 convolutions (2, 2, O, I, 2, 2): [a, b] makes the
    pixels of rows 2y+a and columns 2x+b."""
    merge = weight.new_tensor([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]])
    return torch.einsum("apy,bqx,oiyx->aboipq", merge, merge, weight)


class DoublingConv(nn.Module):
    """(N, I, h, w) → (N, O, 2h, 2w), equal to `conv` (3×3, padding 1) of the doubled input."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        merged = merged_weights(conv.weight.detach().float()).flatten(0, 2)
        self.weight = nn.Parameter(merged.to(conv.weight), requires_grad=False)
        self.bias = None if conv.bias is None else nn.Parameter(conv.bias.detach(), requires_grad=False)

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Tensor:
        n, h, w = len(x), x.shape[2], x.shape[3]
        outputs = len(self.weight) // 4
        bias = None if self.bias is None else self.bias.repeat(4)
        made = F.conv2d(x, self.weight, bias, padding=1)  # (N, 4·O, h+1, w+1)
        shape = (n, outputs, 2 * h, 2 * w)
        out = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        for number, phase in enumerate(made.split(outputs, 1)):
            a, b = divmod(number, 2)
            out[:, :, a::2, b::2] = phase[:, :, a : a + h, b : b + w]
        return out


def fold_doubling(decoder: nn.Module) -> int:
    """Replace each of diffusers' nearest-neighbour upsamplers by a DoublingConv. Returns how many."""
    count = 0
    blocks: list[Any] = list(decoder.modules())
    for block in blocks:
        for place, upsampler in enumerate(getattr(block, "upsamplers", None) or ()):
            conv = getattr(upsampler, "conv", None)
            if type(upsampler).__name__ != "Upsample2D" or not isinstance(conv, nn.Conv2d):
                continue
            if conv.kernel_size == (3, 3) and upsampler.use_conv and upsampler.norm is None:
                block.upsamplers[place] = DoublingConv(conv)
                count += 1
    return count
