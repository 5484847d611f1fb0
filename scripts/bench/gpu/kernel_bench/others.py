"""Temporal attention, norms, convolutions and what the machine can do at most."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from scripts.bench.gpu.kernel_bench.measure import CUDA, DEVICE, DTYPE, HEADS, rand, say, show


def bench_temporal(frames: int, positions: int, width: int) -> None:
    from gpu_worker.fast.kernels.temporal import temporal_attention

    say(f"temporal attention: {positions} positions, width {width}")
    qkv = rand(frames, positions, 3 * width)
    moved = 2.0 * qkv.numel() * 4 / 3
    for dot in (False, True):
        for block in (1, 2, 4, 8) if CUDA else (8,):
            for warps in (1, 2, 4) if CUDA else (4,):
                show(
                    f"Triton block {block} warps {warps}{' dot' if dot else ''}",
                    lambda b=block, w=warps, d=dot: temporal_attention(
                        qkv, frames, HEADS, block=b, warps=w, dot=d
                    ),
                    moved=moved,
                )  # fmt: skip


def bench_norms(frames: int, positions: int, width: int) -> None:
    from gpu_worker.fast.kernels import norms, whole_norms
    from gpu_worker.fast.kernels.launch import can_launch_early

    say(f"norms: {frames}×{positions} positions, width {width}")
    x, other = rand(frames, positions, width), rand(frames, positions, width)
    weight, bias, out = rand(width), rand(width), torch.empty_like(x)
    size = 2.0 * x.numel()
    sums = norms.channel_sums(x)
    show("sums of channels", lambda: norms.channel_sums(x), moved=size)
    show(
        "sum of two, and its sums of channels",
        lambda: norms.add_with_sums(x, other, bias, out),
        moved=3 * size,
    )
    show(
        "group norm and SiLU, given the sums",
        lambda: norms.group_norm(x, None, sums, weight, bias, groups=32, eps=1e-5, silu=True),
        moved=2 * size,
    )
    image = x.unflatten(1, (int(positions**0.5), -1)).permute(0, 3, 1, 2)
    show(
        "torch group norm, then SiLU",
        lambda: F.silu(F.group_norm(image, 32, weight, bias)),
        moved=5 * size,
    )
    rows = x.flatten(0, 1)
    show("layer norm", lambda: norms.layer_norm(rows, weight, bias, shift=bias), moved=2 * size)
    show("torch layer norm", lambda: F.layer_norm(rows, (width,), weight, bias), moved=2 * size)
    wanted = norms.layer_norm(rows, weight, bias, shift=bias)
    for values, warps in ((4096, 4), (2048, 4), (2048, 2), (8192, 8)):
        if whole_norms.in_parts(width):
            show(
                f"layer norm in parts, {values} values, {warps} warps",
                lambda v=values, w=warps: whole_norms.layer_norm_in_parts(
                    rows, weight, bias, shift=bias, values=v, warps=w
                ),
                moved=2 * size,
                wanted=wanted,
            )
    if CUDA and can_launch_early() and whole_norms.in_parts(width):
        show(
            "the same, each launched before the one before has ended",
            lambda: early(lambda: whole_norms.layer_norm_in_parts(rows, weight, bias, shift=bias)),
            moved=2 * size,
            wanted=wanted,
        )
    bench_whole(frames, positions, width)


def early(call: Callable[[], Tensor]) -> Tensor:
    """A call with programmatic dependent launch; in a row they show the most that it gains."""
    from gpu_worker.fast.kernels.launch import programmatic

    with programmatic(True):
        return call()


def bench_whole(frames: int, positions: int, width: int) -> None:
    """Group norm by three kernels and by one, of an image alone and of one beside another."""
    from gpu_worker.fast.kernels import norms, whole_norms

    for second in (0, width):
        channels = width + second
        x, weight, bias = rand(frames, positions, width), rand(channels), rand(channels)
        other = rand(frames, positions, second) if second else None
        given: dict[str, Any] = {"weight": weight, "bias": bias, "groups": 32, "eps": 1e-5, "silu": True}

        def sums(x: Tensor = x, other: Tensor | None = other) -> Tensor:
            own = norms.channel_sums(x)
            return own if other is None else torch.cat([own, norms.channel_sums(other)], 3)

        apart = partial(norms.group_norm, x, other, **given)
        whole = partial(whole_norms.group_norm_whole, x, other, **given)
        known, moved = sums(), 4.0 * frames * positions * channels
        name = f"group norm, {channels} channels, "
        show(name + "sums and norm", lambda f=apart, s=sums: f(sums=s()), moved=moved)
        show(name + "given the sums", lambda f=apart, s=known: f(sums=s), moved=moved)
        if whole_norms.held(positions, channels // 32) <= whole_norms.HELD:
            show(name + "in one kernel", whole, moved=moved, wanted=apart(sums=known))


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
