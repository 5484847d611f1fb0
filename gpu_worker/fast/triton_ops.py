"""The fast network's stages by Triton kernels, cuBLAS and cuDNN.

Tiles were chosen on an H200 (docs/lab/gpu-denoiser.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch import _scaled_mm as scaled_mm
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu_worker.fast.cuda_kernels import CudaKernels
from gpu_worker.fast.kernels import group_norm as group_norms
from gpu_worker.fast.kernels.attention import AttentionTile, attention_split, two_source_attention
from gpu_worker.fast.kernels.gate import gate
from gpu_worker.fast.kernels.layer_norm import layer_norm
from gpu_worker.fast.kernels.merge import merge
from gpu_worker.fast.kernels.temporal import temporal_attention
from gpu_worker.fast.ops import Image, TorchOps
from gpu_worker.fast.weights import Float8, Heads, Linear, Norm, SplitRule

#: Heads up to this size go through the kernel here, larger ones through cuDNN where CUDA C++ does not serve.
OWN_ATTENTION = 64

_SDPA = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


class PaddedHeads(SplitRule):
    """Heads of the kernel here get columns to spare. Larger ones are stored as they are."""

    def __call__(self, size: int) -> tuple[int, int]:
        return attention_split(size) if size <= OWN_ATTENTION else (size, 0)


class TritonOps(TorchOps):
    """The stages on a CUDA device, in half precision.

    Args:
        cuda: kernels that serve in place of Triton's.
    """

    spatial_tile = AttentionTile(128, 64, 8, 3, narrow=True, sampled=True)
    audio_tile = AttentionTile(128, 64, 4, 1)

    def __init__(self, cuda: CudaKernels | None = None) -> None:
        super().__init__(PaddedHeads())
        self.cuda = cuda or CudaKernels()

    def double(self, image: Image, phases: Tensor, shift: Tensor) -> Image:
        x = self.phases(image, phases).flatten(1, 2)
        data, sums = group_norms.interleave_with_sums(x, image.height, image.width, shift)
        return Image(data, 2 * image.height, 2 * image.width, sums)

    def add(self, image: Image, other: Tensor | None, shift: Tensor) -> Image:
        sums = group_norms.add_with_sums(image.data, other, shift, image.data)
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
        other = None if second is None else second.data
        sums = _sums(image) if shift is None else group_norms.channel_sums(image.data, shift=shift)
        if second is not None:
            sums = torch.cat([sums, _sums(second)], 3)
        data = group_norms.group_norm(
            image.data, other, sums, norm.weight, norm.bias,
            groups=norm.groups, eps=norm.eps, silu=silu, shift=shift, correction=norm.correction,
        )  # fmt: skip
        return Image(data, image.height, image.width)

    def group_norm_parts(self, image: Image, norm: Norm, parts: Sequence[Tensor]) -> None:
        group_norms.group_norm(
            image.data, None, _sums(image), norm.weight, norm.bias,
            groups=norm.groups, eps=norm.eps, silu=False, correction=norm.correction, parts=parts,
        )  # fmt: skip

    def add_parts(self, image: Image, parts: Sequence[Tensor]) -> None:
        image.sums = group_norms.add_parts_with_sums(image.data, parts)

    def layer_norm(self, x: Tensor, norm: Norm, bias: Tensor | None = None, repeat: int = 1) -> Tensor:
        return self._norm_rows(x, norm, bias, repeat)

    def _norm_rows(self, x: Tensor, norm: Norm, bias: Tensor | None, repeat: int, **options: Any) -> Tensor:
        bias = norm.bias if bias is None else bias
        return layer_norm(
            x, norm.weight, bias, eps=norm.eps, shift=norm.shift, rows_per_bias=repeat, **options
        )

    def norm_linear(
        self, x: Tensor, norm: Norm, layer: Linear, bias: Tensor | None = None, repeat: int = 1
    ) -> Tensor:
        if layer.float8 is None:
            return super().norm_linear(x, norm, layer, bias, repeat)
        return float8_linear(self._norm_to_float8(x, norm, layer.float8, bias, repeat), layer)

    def feed_forward(self, x: Tensor, norm: Norm, first: Linear, second: Linear) -> None:
        if first.float8 is None:
            super().feed_forward(x, norm, first, second)
            return
        rows = self._norm_to_float8(x, norm, first.float8)
        if second.float8 is None:
            self.add_linear(x, self._geglu_of_float8(rows, first, x.dtype), second)
            return
        hidden = self._geglu_of_float8(rows, first, torch.float8_e4m3fn, second.float8.input_scale)
        x.add_(float8_linear(hidden, second))

    def _geglu_of_float8(self, x: Tensor, layer: Linear, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
        """`geglu` of x in float8. scale: of the output where that is in float8 too."""
        assert layer.float8 is not None
        out = torch.empty(len(x), len(layer.weight) // 2, dtype=dtype, device=x.device)
        made = 1 / (layer.float8.input_scale * layer.float8.weight_scale)
        if not self.cuda.geglu_into(out, x, layer.float8.weight, layer.bias, made, scale):
            gate(float8_linear(x, layer), out=out, out_scale=scale)
        return out

    def _norm_to_float8(
        self, x: Tensor, norm: Norm, to: Float8, bias: Tensor | None = None, repeat: int = 1
    ) -> Tensor:
        return self._norm_rows(x, norm, bias, repeat, out_dtype=torch.float8_e4m3fn, out_scale=to.input_scale)

    def geglu(self, x: Tensor, layer: Linear) -> Tensor:
        out = x.new_empty(len(x), len(layer.weight) // 2)
        self.geglu_into(out, x, layer)
        return out

    def geglu_into(self, out: Tensor, x: Tensor, layer: Linear) -> None:
        if not self.cuda.geglu_into(out, x, layer.weight, layer.bias):
            gate(self.linear(x, layer), out=out)

    def two_sources(self, heads: Heads, positions: int) -> bool:
        if heads.size <= OWN_ATTENTION:
            return super().two_sources(heads, positions)
        spatial = self.cuda.spatial
        lengths = positions, positions, positions
        return spatial is not None and spatial.fits(*lengths, heads.size, attention_split(heads.size))

    def attention(
        self, q: Tensor, k: Tensor, v: Tensor, heads: Heads, ref: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        large = heads.size > OWN_ATTENTION
        if large and ref is None:
            with sdpa_kernel(_SDPA, set_priority=True):
                return super().attention(q, k, v, heads, ref)
        ref_k, ref_v = ref or (None, None)
        tile = self.spatial_tile if ref is not None else self.audio_tile
        split = attention_split(heads.size) if large else heads.split
        return two_source_attention(
            q, k, v, ref_k, ref_v, heads=heads.count, size=heads.size, split=split, tile=tile,
            sampled=self.cuda.sampled_attention,
        )  # fmt: skip

    def merge(self, kv: Tensor, height: int, width: int) -> Tensor:
        return merge(kv, height, width)

    def temporal(self, qkv: Tensor, frames: int, heads: int) -> Tensor:
        made = self.cuda.temporal_attention(qkv, frames, heads)
        return temporal_attention(qkv, frames, heads) if made is None else made


def float8_linear(x: Tensor, layer: Linear) -> Tensor:
    """x (rows, in) in float8, scaled as `layer.float8` says → (rows, out) in the layer's own type."""
    assert layer.float8 is not None
    x_inverse, weight_inverse = layer.float8.inverse
    return scaled_mm(
        x,
        layer.float8.weight.t(),
        scale_a=x_inverse,
        scale_b=weight_inverse,
        bias=layer.bias,
        out_dtype=layer.weight.dtype,
        use_fast_accum=True,
    )


def _sums(image: Image) -> Tensor:
    if image.sums is None:
        image.sums = group_norms.channel_sums(image.data)
    return image.sums
