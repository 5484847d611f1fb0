"""Spatial attention over frame and reference."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from scripts.bench.gpu.kernel_bench.measure import CUDA, HEADS, Variant, rand, say, show

TILES = [(128, 64, 8, 3), (128, 64, 4, 3), (128, 64, 8, 4), (128, 64, 8, 2), (64, 128, 4, 2), (64, 128, 4, 3),
         (64, 64, 4, 3)]  # fmt: skip


def attention_call(
    tokens: int,
    refs: int,
    size: int,
    split: tuple[int, int],
    tile: tuple[int, ...],
    narrow: bool,
    frames: int,
    cuda: bool | None = None,
) -> tuple[Callable[[], Tensor], Callable[[int], Tensor]]:
    """cuda: None for a running maximum, else a sampled one, by CUDA C++ or by Triton."""
    from gpu_worker.fast.cuda_kernels import CudaKernels, cuda_kernels
    from gpu_worker.fast.kernels.attention import AttentionTile, two_source_attention

    kernels = cuda_kernels(torch.device("cuda")) if cuda else CudaKernels()
    wide = sum(split)
    queries, keys, warps, stages = tile
    own = AttentionTile(queries, keys, warps, stages, narrow, sampled=cuda is not None)
    qkv = rand(frames, tokens, 3 * HEADS * wide).unflatten(2, (3, HEADS, wide))
    ref = rand(1, refs, 2 * HEADS * wide).unflatten(2, (2, HEADS, wide))
    for x in (qkv, ref):
        x[..., size:] = 0
        x[:, :, -2:, :, size:][..., :1] = 1  # keys and values
    qkv[:, :, 0] *= 2 * 1.4426950408889634 / size**0.5
    q, k, v = qkv.flatten(2).chunk(3, 2)
    rk, rv = ref.flatten(2).chunk(2, 2)

    def call() -> Tensor:
        return two_source_attention(
            q, k, v, rk, rv, heads=HEADS, size=size, split=split, tile=own, sampled=kernels.sampled_attention
        )

    def wanted(count: int) -> Tensor:
        a = q[:1, :count].unflatten(2, (HEADS, wide))[..., :size].transpose(1, 2).float()
        keys, values = (
            torch.cat([mine[:1], other], 1).unflatten(2, (HEADS, wide))[..., :size].transpose(1, 2).float()
            for mine, other in ((k, rk), (v, rv))
        )
        weights = torch.softmax(a @ keys.transpose(2, 3) * 0.6931471805599453, -1)
        mixed: Tensor = (weights @ values).transpose(1, 2)
        return mixed.flatten(2)

    return call, wanted


def bench_attention(frames: int, side: int, variants: list[Variant], level: int, size: int) -> None:
    tokens = (side >> level) ** 2
    flop = 4.0 * frames * HEADS * tokens * 2 * tokens * size
    say(f"spatial attention, level {level}: {tokens} queries × {2 * tokens} keys, {HEADS} heads of {size}")
    q, k, v = rand(frames, HEADS, tokens, size), *(rand(frames, HEADS, 2 * tokens, size) for _ in range(2))
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION) if CUDA else (SDPBackend.MATH,):

        def torch_call(backend: SDPBackend = backend) -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v)

        show(f"torch {backend.name}", torch_call, flop)
    if CUDA and find_spec("flash_attn") is not None:
        attend = import_module("flash_attn.cute").flash_attn_func
        rows = [x.transpose(1, 2).contiguous() for x in (q, k, v)]

        def library_call() -> Tensor:
            given = attend(*rows)
            made: Tensor = given[0] if isinstance(given, tuple) else given
            return made

        exact = F.scaled_dot_product_attention(q[:1, :, :64].float(), k[:1].float(), v[:1].float())
        show("flash-attn-4", library_call, flop, wanted=exact.transpose(1, 2), part=lambda x: x[:1, :64])
    for name, options in variants:
        call, wanted = attention_call(tokens, tokens, size, frames=frames, **options)
        count = min(256, tokens)
        show(name, call, flop, wanted=wanted(count), part=lambda x, count=count: x[:1, :count])


def attention_variants(size: int, quick: bool) -> list[Variant]:
    from gpu_worker.fast.kernels.attention import attention_split
    from gpu_worker.fast.kernels.spatial_cuda import SHAPES

    split = attention_split(size)
    tiles = [(16, 16, 4, 2)] if quick else TILES[: 3 if size > 40 else None]
    sampled: list[Variant] = [
        (name, {"split": split, "tile": TILES[0], "narrow": True, "cuda": cuda})
        for name, cuda in (("CUDA C++", True), ("Triton, sampled maximum", False))
        if CUDA and (size in SHAPES if cuda else size == 40)
    ]
    return sampled + [
        (f"Triton {split} {tile}{' narrow' if narrow else ''}",
         {"split": split, "tile": tile, "narrow": narrow})
        for tile in tiles for narrow in ((False, True) if size == 40 else (False,))
    ]  # fmt: skip


def compile_attention(size: int, options: dict[str, Any]) -> None:
    """In a process of its own: the compiled kernel stays in Triton's cache."""
    try:
        attention_call(512, 512, size, frames=1, **options)[0]()
    except Exception:  # said when it is timed
        return
