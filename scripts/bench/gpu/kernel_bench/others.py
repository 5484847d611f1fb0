"""Temporal attention, norms, convolutions and the machine's limits."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from gpu_worker.fast.ops import TorchOps
from scripts.bench.gpu.kernel_bench.measure import CUDA, DEVICE, DTYPE, HEADS, rand, say, show


def bench_temporal(frames: int, positions: int, width: int) -> None:
    from gpu_worker.fast.kernels.temporal import temporal_attention

    say(f"temporal attention: {positions} positions, width {width}")
    qkv = rand(frames, positions, 3 * width)
    moved = 2.0 * qkv.numel() * 4 / 3
    if CUDA:
        from gpu_worker.fast.kernels.temporal_cuda import CudaTemporal

        own = CudaTemporal(torch.cuda.get_device_capability())
        show("CUDA C++", lambda: own(qkv, frames, HEADS), moved=moved)
    for block in (1, 2, 4, 8) if CUDA else (8,):
        for warps in (1, 2, 4) if CUDA else (4,):
            show(
                f"Triton block {block} warps {warps}",
                lambda b=block, w=warps: temporal_attention(qkv, frames, HEADS, block=b, warps=w),
                moved=moved,
            )


def bench_merge(frames: int, side: int) -> None:
    """Keys and values of the highest resolution, as the fast tier merges them."""
    from gpu_worker.fast.kernels.merge import merge

    say(f"keys and values merged 2×2: {frames}×{side}×{side} positions")
    kv = rand(frames, side * side, 3 * HEADS * 64)[..., HEADS * 64 :]
    moved = 2.5 * kv.numel()
    show("torch", lambda: TorchOps().merge(kv, side, side), moved=moved)
    show("Triton", lambda: merge(kv, side, side), moved=moved)


def bench_norms(frames: int, positions: int, width: int) -> None:
    from gpu_worker.fast.kernels import group_norm
    from gpu_worker.fast.kernels.layer_norm import layer_norm

    say(f"norms: {frames}×{positions} positions, width {width}")
    x, other = rand(frames, positions, width), rand(frames, positions, width)
    weight, bias, out = rand(width), rand(width), torch.empty_like(x)
    size = 2.0 * x.numel()
    sums = group_norm.channel_sums(x)
    show("sums of channels", lambda: group_norm.channel_sums(x), moved=size)
    show(
        "sum of two, and its sums of channels",
        lambda: group_norm.add_with_sums(x, other, bias, out),
        moved=3 * size,
    )
    show(
        "group norm and SiLU, given the sums",
        lambda: group_norm.group_norm(x, None, sums, weight, bias, groups=32, eps=1e-5, silu=True),
        moved=2 * size,
    )
    image = x.unflatten(1, (int(positions**0.5), -1)).permute(0, 3, 1, 2)
    show(
        "torch group norm, then SiLU",
        lambda: F.silu(F.group_norm(image, 32, weight, bias)),
        moved=5 * size,
    )
    rows = x.flatten(0, 1)
    show("layer norm", lambda: layer_norm(rows, weight, bias, shift=bias), moved=2 * size)
    show("torch layer norm", lambda: F.layer_norm(rows, (width,), weight, bias), moved=2 * size)


def bench_conv(frames: int, side: int) -> None:
    say(f"3×3 convolutions, channels_last, from {side}²")
    torch.backends.cudnn.benchmark = True
    for level, c_in, c_out in ((0, 320, 320), (0, 640, 320), (0, 960, 320), (1, 640, 640), (1, 1280, 640),
                               (1, 1920, 640), (2, 1280, 1280), (2, 2560, 1280), (3, 1280, 1280),
                               (0, 4, 320), (0, 320, 4)):  # fmt: skip
        s = side >> level
        x = rand(frames, c_in, s, s).contiguous(memory_format=torch.channels_last)
        w = (rand(c_out, c_in, 3, 3) / (9 * c_in) ** 0.5).contiguous(memory_format=torch.channels_last)
        flop = 2.0 * frames * s * s * 9 * c_in * c_out
        show(f"{c_in} → {c_out} at {s}²", lambda x=x, w=w: F.conv2d(x, w, padding=1), flop)
    for level, c in ((0, 640), (1, 1280)):
        s = side >> level
        x = rand(frames, c, s // 2, s // 2).contiguous(memory_format=torch.channels_last)
        w = (rand(c, c, 3, 3) / (9 * c) ** 0.5).contiguous(memory_format=torch.channels_last)
        w2 = (rand(c, c, 2, 2) / (4 * c) ** 0.5).contiguous(memory_format=torch.channels_last)
        show(
            f"up-sampling to {s}², then {c} → {c}",
            lambda x=x, w=w: F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), w, padding=1),
        )
        show(f"a quarter of it: 2×2 {c} → {c} at {s // 2}²", lambda x=x, w=w2: F.conv2d(x, w, padding=1))


def bench_ceilings() -> None:
    say("ceilings")
    a, b = rand(8192, 8192), rand(8192, 8192)
    show("matrix product 8192³", lambda: a @ b, 2.0 * 8192**3)
    big, other = torch.ones(2**30, device=DEVICE, dtype=DTYPE), torch.empty(2**30, device=DEVICE, dtype=DTYPE)
    show("copy", lambda: other.copy_(big), moved=4.0 * 2**30)
