"""The fast network's stages in plain torch, on any device and in any type. `triton_ops` computes the same.

Images are (N, positions, channels), rows of channels in memory, so that a linear layer takes them as they
are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_worker.fast.weights import Heads, Linear, Norm, SplitRule

#: The largest value of float8 (e4m3).
FLOAT8_MAX = torch.finfo(torch.float8_e4m3fn).max


@dataclass(slots=True, eq=False)
class Image:
    """data (N, height·width, channels). sums: of its channels where a norm needs them and they are known."""

    data: Tensor
    height: int
    width: int
    sums: Tensor | None = None

    @property
    def rows(self) -> Tensor:
        """(N·height·width, channels), a view."""
        return self.data.flatten(0, 1)


class TorchOps:
    """Each method is one stage of the network. Shapes as in `kernels`. split: how heads are stored."""

    def __init__(self, split: SplitRule | None = None) -> None:
        self.split = split or SplitRule()

    def conv(self, image: Image, weight: Tensor, stride: int = 1) -> Image:
        """3×3 convolution without bias."""
        x = image.data.unflatten(1, (image.height, image.width)).permute(0, 3, 1, 2)
        return _image(F.conv2d(x, weight, stride=stride, padding=1))

    def upsample(self, image: Image, height: int, width: int) -> Image:
        """Nearest neighbours."""
        x = image.data.unflatten(1, (image.height, image.width)).permute(0, 3, 1, 2)
        return _image(F.interpolate(x, size=(height, width), mode="nearest"))

    def double(self, image: Image, phases: Tensor, shift: Tensor) -> Image:
        """Nearest neighbours at twice the size and the 3×3 convolution after, from its `phases`; + shift."""
        x = self.phases(image, phases).unflatten(3, (2, 2, -1))
        h, w = image.height, image.width
        rows = [[x[:, a : a + h, b : b + w, a, b] for b in range(2)] for a in range(2)]
        data = torch.stack([torch.stack(row, 3) for row in rows], 2)  # (N, h, a, w, b, channels)
        return Image(data.flatten(3, 4).flatten(1, 3) + shift, 2 * h, 2 * w)

    def phases(self, image: Image, weight: Tensor) -> Tensor:
        """The four 2×2 convolutions of `double`: (N, height + 1, width + 1, 4·channels)."""
        x = image.data.unflatten(1, (image.height, image.width)).permute(0, 3, 1, 2)
        return F.conv2d(x, weight, padding=1).permute(0, 2, 3, 1).contiguous()

    def add(self, image: Image, other: Tensor | None, shift: Tensor) -> Image:
        """image + other + shift, in a place of its own or `image`'s."""
        data = image.data + shift if other is None else image.data + other + shift
        return Image(data, image.height, image.width)

    def group_norm(
        self,
        image: Image,
        norm: Norm,
        *,
        silu: bool,
        second: Image | None = None,
        shift: Tensor | None = None,
    ) -> Image:
        """Group norm of (image ; second) + shift − the norm's correction, [and SiLU]."""
        x = image.data if second is None else torch.cat([image.data, second.data], 2)
        if shift is not None:
            x = x + shift
        if norm.correction is not None:
            x = x - norm.correction
        y = F.group_norm(x.transpose(1, 2), norm.groups, norm.weight, norm.bias, norm.eps).transpose(1, 2)
        return Image((F.silu(y) if silu else y).contiguous(), image.height, image.width)

    def group_norm_parts(self, image: Image, norm: Norm, parts: Sequence[Tensor]) -> None:
        """`group_norm`, its positions in parts: (N, positions of one, channels) each, the first come first.

        The last parts are filled up with zeros where the positions do not go round.
        """
        data = self.group_norm(image, norm, silu=False).data
        share = parts[0].shape[1]
        data = F.pad(data, (0, 0, 0, len(parts) * share - data.shape[1]))
        for part, values in zip(parts, data.split(share, 1), strict=True):
            part.copy_(values)

    def add_parts(self, image: Image, parts: Sequence[Tensor]) -> None:
        """image += parts, which lie as `group_norm_parts` writes them."""
        image.data += torch.cat(list(parts), 1)[:, : image.data.shape[1]]
        image.sums = None

    def layer_norm(self, x: Tensor, norm: Norm, bias: Tensor | None = None, repeat: int = 1) -> Tensor:
        """x (rows, width) + the norm's shift; `bias` (n, width) instead of its own: `repeat` rows each."""
        if norm.shift is not None:
            x = x + norm.shift
        if bias is None:
            return F.layer_norm(x, (x.shape[1],), norm.weight, norm.bias, norm.eps)
        y = F.layer_norm(x, (x.shape[1],), norm.weight, None, norm.eps)
        return (y.view(-1, len(bias), repeat, x.shape[1]) + bias[:, None]).view_as(x)

    def norm_linear(
        self, x: Tensor, norm: Norm, layer: Linear, bias: Tensor | None = None, repeat: int = 1
    ) -> Tensor:
        """A linear layer of `layer_norm`'s result."""
        return self.linear(self.layer_norm(x, norm, bias, repeat), layer)

    def feed_forward(self, x: Tensor, norm: Norm, first: Linear, second: Linear) -> None:
        """x += second(geglu(first(layer_norm(x))))."""
        self.add_linear(x, self.geglu(self.layer_norm(x, norm), first), second)

    def linear(self, x: Tensor, layer: Linear) -> Tensor:
        if layer.float8 is None:
            return F.linear(x, layer.weight, layer.bias)
        weight = layer.float8.weight.to(x.dtype) / layer.float8.weight_scale
        return F.linear(rounded(x, layer.float8.input_scale), weight, layer.bias)

    def linear_into(self, out: Tensor, x: Tensor, weight: Tensor) -> None:
        """out (N, positions, out), rows may be strided, = x (N · positions, in) · weightᵀ."""
        torch.bmm(x.view(*out.shape[:2], -1), weight.t().expand(len(out), -1, -1), out=out)

    def project(self, out: Tensor, x: Tensor, weight: Tensor) -> None:
        """out (rows, out), rows may be strided, = x (rows, in) · weightᵀ."""
        torch.mm(x, weight.t(), out=out)

    def add_linear(self, into: Tensor, x: Tensor, layer: Linear) -> None:
        """into (rows, out) += x (rows, in) · weightᵀ."""
        if layer.float8 is None:
            into.addmm_(x, layer.weight.t())
        else:
            into += self.linear(x, layer)

    def geglu(self, x: Tensor, layer: Linear) -> Tensor:
        value, gate = self.linear(x, layer).chunk(2, 1)
        return value * F.gelu(gate)

    def geglu_into(self, out: Tensor, x: Tensor, layer: Linear) -> None:
        """out (rows, inner), rows may be strided, = geglu(x)."""
        out.copy_(self.geglu(x, layer))

    def two_sources(self, heads: Heads, positions: int) -> bool:
        """Whether `attention` should be given frame and reference apart, of so many positions each."""
        return heads.wide > heads.size

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, heads: Heads, ref: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """q (N, queries, columns), k and v (N, keys, columns), ref (1, keys, columns) each, as `Heads` says.

        → (N, queries, count · size). Logits are to the base 2, their scale is in q.
        """
        if ref is not None:
            k, v = (torch.cat([x, r.expand(len(x), -1, -1)], 1) for x, r in zip((k, v), ref, strict=True))
        q, k, v = (x.unflatten(2, (heads.count, heads.wide)).transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, scale=math.log(2))
        if heads.wide > heads.size:  # spare columns of q are 0; the values' says how many each stands for
            out = out[..., : heads.size] / out[..., heads.size : heads.size + 1]
        return out.transpose(1, 2).flatten(2)

    def merge(self, kv: Tensor, height: int, width: int) -> Tensor:
        """Keys and values side by side (N, positions, 2·columns), 2×2 merged: keys averaged, values added."""
        four: Tensor = kv.unflatten(1, (height // 2, 2, width // 2, 2)).sum((2, 4))
        four[..., : kv.shape[2] // 2] *= 0.25
        return four.flatten(1, 2)

    def temporal(self, qkv: Tensor, frames: int, heads: int) -> Tensor:
        """qkv (frames, positions, 3·width) → (frames, positions, width)."""
        x = qkv.unflatten(2, (3, heads, -1)).permute(2, 1, 3, 0, 4)  # (3, positions, heads, frames, size)
        return F.scaled_dot_product_attention(*x).permute(2, 0, 1, 3).flatten(2)


def positions_of_part(positions: int, parts: int) -> int:
    """Positions of each part but the last ones, which may have fewer."""
    return -(-positions // parts)


def rounded(x: Tensor, scale: float) -> Tensor:
    """x as float8 (e4m3) has it when multiplied by `scale`: the input of a tier's float8 layers."""
    return (x * scale).clamp(-FLOAT8_MAX, FLOAT8_MAX).to(torch.float8_e4m3fn).to(x.dtype) / scale


def _image(x: Tensor) -> Image:
    """x (N, channels, height, width) → image. No copy where x is channels_last, as convolutions make it."""
    data = x.permute(0, 2, 3, 1).contiguous()
    return Image(data.flatten(1, 2), x.shape[2], x.shape[3])
