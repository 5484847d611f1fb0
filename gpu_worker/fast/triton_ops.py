"""The fast network's stages by Triton kernels, cuBLAS and cuDNN.

Tiles were chosen on an H200 (docs/gpu-speed.md).
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_worker.fast.kernels import norms, whole_norms
from gpu_worker.fast.kernels.attention import Tile, attention_split, two_source_attention
from gpu_worker.fast.kernels.geglu import GemmTile, gate, geglu
from gpu_worker.fast.kernels.launch import can_launch_early, programmatic
from gpu_worker.fast.kernels.temporal import temporal_attention
from gpu_worker.fast.ops import Image, TorchOps
from gpu_worker.fast.weights import Heads, Linear, Low, Norm, SplitRule

OWN_ATTENTION = 64
"""Heads up to this size go through the kernel here, larger ones through cuDNN."""

_SDPA = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


LOW = torch.float8_e4m3fn


class PaddedHeads(SplitRule):
    def __call__(self, size: int) -> tuple[int, int]:
        return attention_split(size) if size <= OWN_ATTENTION else (size, 0)


class TritonOps(TorchOps):
    """without: stages left to plain torch, for comparison, of norms, double, temporal, gate and attention.

    fused_geglu: the gate within a matrix product of Triton's instead of after one of cuBLAS. narrow, sampled:
    see `kernels.attention.Tile`. direct, fold, early: see `TorchOps`; early only where the device has it.
    parts, whole: layer norms in five parts and group norms of small images in one kernel, see
    `kernels.whole_norms`. small: tiles for tiny networks, as tests have.
    """

    def __init__(
        self,
        *,
        without: Collection[str] = (),
        fused_geglu: bool = False,
        narrow: bool = True,
        sampled: bool = True,
        direct: bool = True,
        fold: bool = True,
        early: bool = False,
        parts: bool = True,
        whole: bool = False,
        small: bool = False,
    ) -> None:
        super().__init__(None if "attention" in without else PaddedHeads())
        self.without = frozenset(without)
        self.fused_geglu = fused_geglu
        self.direct = direct
        self.fold = fold
        self.early = early and can_launch_early()
        self.parts = parts
        self.whole = whole
        self.spatial_tile = Tile(*((32, 32, 4, 2) if small else (128, 64, 8, 3)), narrow, sampled)
        self.audio_tile = Tile(32, 32, 4, 1) if small else Tile(128, 64, 4, 1)
        self.geglu_tile = GemmTile(32, 32, 32, 4, 2) if small else GemmTile(128, 128, 64, 8, 3)

    def launching(self) -> AbstractContextManager[None]:
        return programmatic(self.early)

    def double(self, image: Image, phases: Tensor, shift: Tensor) -> Image:
        if "double" in self.without or "norms" in self.without:
            return super().double(image, phases, shift)
        x = self.phases(image, phases).flatten(1, 2)
        data, sums = norms.interleave_with_sums(x, image.height, image.width, shift)
        return Image(data, 2 * image.height, 2 * image.width, sums)

    def add(self, image: Image, other: Tensor | None, shift: Tensor) -> Image:
        if "norms" in self.without:
            return super().add(image, other, shift)
        sums = norms.add_with_sums(image.data, other, shift, image.data)
        return Image(image.data, image.height, image.width, sums)

    def group_norm(
        self,
        image: Image,
        norm: Norm,
        *,
        silu: bool,
        second: Image | None = None,
        shift: Tensor | None = None,
    ) -> Image:
        if "norms" in self.without:
            return super().group_norm(image, norm, silu=silu, second=second, shift=shift)
        other = None if second is None else second.data
        channels = image.data.shape[2] + (0 if other is None else other.shape[2])
        options: dict[str, Any] = {
            "groups": norm.groups,
            "eps": norm.eps,
            "silu": silu,
            "shift": shift,
            "correction": norm.correction,
        }
        held = whole_norms.held(image.data.shape[1], channels // norm.groups)
        if self.whole and held <= whole_norms.HELD:
            data = whole_norms.group_norm_whole(image.data, other, norm.weight, norm.bias, **options)
        else:
            sums = norms.channel_sums(image.data, shift=shift) if shift is not None else _sums(image)
            if second is not None:
                sums = torch.cat([sums, _sums(second)], 3)
            data = norms.group_norm(image.data, other, sums, norm.weight, norm.bias, **options)
        return Image(data, image.height, image.width)

    def layer_norm(self, x: Tensor, norm: Norm, bias: Tensor | None = None, repeat: int = 1) -> Tensor:
        if "norms" in self.without:
            return super().layer_norm(x, norm, bias, repeat)
        return self._norm_rows(x, norm, bias, repeat)

    def _norm_rows(self, x: Tensor, norm: Norm, bias: Tensor | None, repeat: int, **options: Any) -> Tensor:
        bias = norm.bias if bias is None else bias
        options |= {"eps": norm.eps, "shift": norm.shift, "rows_per_bias": repeat}
        if self.parts and whole_norms.in_parts(x.shape[1]):
            return whole_norms.layer_norm_in_parts(x, norm.weight, bias, **options)
        return norms.layer_norm(x, norm.weight, bias, **options)

    def norm_linear(
        self, x: Tensor, norm: Norm, layer: Linear, bias: Tensor | None = None, repeat: int = 1
    ) -> Tensor:
        if layer.low is None:
            return super().norm_linear(x, norm, layer, bias, repeat)
        return low_linear(self._norm_to_low(x, norm, layer.low, bias, repeat), layer)

    def feed_forward(self, x: Tensor, norm: Norm, first: Linear, second: Linear) -> None:
        if first.low is None:
            super().feed_forward(x, norm, first, second)
            return
        wide = low_linear(self._norm_to_low(x, norm, first.low), first)
        if second.low is None:
            self.add_linear(x, gate(wide), second)
            return
        hidden = gate(wide, out_dtype=LOW, out_scale=second.low.input_scale)
        x.add_(low_linear(hidden, second))

    def _norm_to_low(
        self, x: Tensor, norm: Norm, low: Low, bias: Tensor | None = None, repeat: int = 1
    ) -> Tensor:
        return self._norm_rows(x, norm, bias, repeat, out_dtype=LOW, out_scale=low.input_scale)

    def geglu(self, x: Tensor, layer: Linear) -> Tensor:
        if self.fused_geglu:
            assert layer.bias is not None
            return geglu(x, layer.weight, layer.bias, tile=self.geglu_tile)
        if "gate" in self.without:
            return super().geglu(x, layer)
        return gate(self.linear(x, layer))

    def geglu_into(self, out: Tensor, x: Tensor, layer: Linear) -> None:
        if self.fused_geglu or "gate" in self.without:
            super().geglu_into(out, x, layer)
        else:
            gate(self.linear(x, layer), out=out)

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, heads: Heads, ref: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        if heads.size > OWN_ATTENTION or "attention" in self.without:
            with sdpa_kernel(_SDPA, set_priority=True):
                return super().attention(q, k, v, heads, ref)
        ref_k, ref_v = ref or (None, None)
        tile = self.spatial_tile if ref is not None else self.audio_tile
        return two_source_attention(
            q, k, v, ref_k, ref_v, heads=heads.count, size=heads.size, split=heads.split, tile=tile
        )

    def temporal(self, qkv: Tensor, frames: int, heads: int) -> Tensor:
        if "temporal" in self.without:
            return super().temporal(qkv, frames, heads)
        return temporal_attention(qkv, frames, heads, block=2, dot=True)


def low_linear(x: Tensor, layer: Linear) -> Tensor:
    """x (rows, in) in float8, scaled as `layer.low` says → (rows, out) in the layer's own type."""
    assert layer.low is not None
    x_inverse, weight_inverse = layer.low.inverse
    return torch._scaled_mm(
        x,
        layer.low.weight.t(),
        scale_a=x_inverse,
        scale_b=weight_inverse,
        bias=layer.bias,
        out_dtype=layer.weight.dtype,
        use_fast_accum=True,
    )


def _sums(image: Image) -> Tensor:
    if image.sums is None:
        image.sums = norms.channel_sums(image.data)
    return image.sums
