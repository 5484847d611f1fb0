"""Times the fast path's kernels, and what they are measured against, at the denoiser's real shapes.

`python -m scripts.kernel_bench` prints a line a variant: milliseconds (median), the rate it reaches and its
error. `--quick` runs tiny shapes, on a CPU through Triton's interpreter. It is how tiles were chosen.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
DTYPE = torch.float16 if CUDA else torch.float32
FRAMES, HEADS = 12, 8
Variant = tuple[str, dict[str, Any]]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def milliseconds(call: Callable[[], object], repeat: int = 7) -> float:
    """Median time of a call on the device, from a CUDA graph of several, so that launches cost nothing."""
    if not CUDA:
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    count = max(1, min(100, int(4 / max(begin.elapsed_time(end), 1e-3))))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            call()
    graph.replay()
    times = []
    for _ in range(repeat):
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / count)
    return statistics.median(times)


def show(
    name: str, call: Callable[..., Tensor], flop: float = 0.0, moved: float = 0.0,
    wanted: Tensor | None = None, part: Callable[..., Tensor] = lambda x: x,
) -> None:  # fmt: skip
    """One line; a variant that fails says why and the others go on."""
    try:
        made = call()
        error = ""
        if wanted is not None:
            difference = (part(made).float() - wanted.float()).norm() / wanted.float().norm()
            error = f"  err {difference.item():.1e}"
        del made
        ms = milliseconds(call)
        rate = f"{flop / ms * 1e-9:7.0f} TFLOP/s" if flop else " " * 15
        band = f" {moved / ms * 1e-9:6.2f} TB/s" if moved else ""
        say(f"  {name:58s} {ms:8.3f} ms {rate}{band}{error}")
    except Exception as problem:
        last = traceback.format_exc(limit=-1).strip().splitlines()[-1]
        say(f"  {name:58s} FAILED {type(problem).__name__}: {last[:160]}")


def rand(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=torch.float32).to(DTYPE)


# ---------------------------------------------------------------- attention

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
) -> tuple[Callable[[], Tensor], Callable[[int], Tensor]]:
    from gpu_worker.kernels.attention import Tile, two_source_attention

    wide = sum(split)
    queries, keys, warps, stages = tile
    own = Tile(queries, keys, warps, stages, narrow)
    qkv = rand(frames, tokens, 3 * HEADS * wide).unflatten(2, (3, HEADS, wide))
    ref = rand(1, refs, 2 * HEADS * wide).unflatten(2, (2, HEADS, wide))
    for x in (qkv, ref):
        x[..., size:] = 0
        x[:, :, -1, :, size:][..., :1] = 1
    qkv[:, :, 0] *= 2 * 1.4426950408889634 / size**0.5
    q, k, v = qkv.flatten(2).chunk(3, 2)
    rk, rv = ref.flatten(2).chunk(2, 2)

    def call() -> Tensor:
        return two_source_attention(q, k, v, rk, rv, heads=HEADS, size=size, split=split, tile=own)

    def wanted(count: int) -> Tensor:
        a = q[:1, :count].unflatten(2, (HEADS, wide))[..., :size].transpose(1, 2).float()
        keys, values = (
            torch.cat([mine[:1], other], 1).unflatten(2, (HEADS, wide))[..., :size].transpose(1, 2).float()
            for mine, other in ((k, rk), (v, rv))
        )
        weights = torch.softmax(a @ keys.transpose(2, 3) * 0.6931471805599453, -1)
        return (weights @ values).transpose(1, 2).flatten(2)

    return call, wanted


def bench_attention(side: int, variants: list[Variant], level: int, size: int) -> None:
    tokens = (side >> level) ** 2
    flop = 4.0 * FRAMES * HEADS * tokens * 2 * tokens * size
    say(f"spatial attention, level {level}: {tokens} queries × {2 * tokens} keys, {HEADS} heads of {size}")
    q, k, v = rand(FRAMES, HEADS, tokens, size), *(rand(FRAMES, HEADS, 2 * tokens, size) for _ in range(2))
    for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION) if CUDA else (SDPBackend.MATH,):

        def torch_call(backend: SDPBackend = backend) -> Tensor:
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v)

        show(f"torch {backend.name}", torch_call, flop)
    for name, options in variants:
        call, wanted = attention_call(tokens, tokens, size, frames=FRAMES, **options)
        count = min(256, tokens)
        show(name, call, flop, wanted=wanted(count), part=lambda x, count=count: x[:1, :count])


def attention_variants(size: int, quick: bool) -> list[Variant]:
    from gpu_worker.kernels.attention import attention_split

    split = attention_split(size)
    tiles = [(16, 16, 4, 2)] if quick else TILES[: 3 if size > 40 else None]
    return [
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


# ---------------------------------------------------------------- linear layers

GEMM_TILES = [(128, 128, 64, 8, 3), (128, 64, 64, 8, 3)]


def fp8(x: Tensor) -> Tensor:
    return x.to(torch.float8_e4m3fn)


def geglu_call(
    rows: int, width: int, inner: int, tile: tuple[int, ...], described: bool, low: bool
) -> tuple[Callable[[], Tensor], Tensor]:
    from gpu_worker.kernels.geglu import GemmTile, geglu

    x, w, bias = rand(rows, width), rand(2 * inner, width) / width**0.5, rand(2 * inner) * 0.1
    value, gate = F.linear(x[:64].float(), w.float(), bias.float()).chunk(2, 1)
    wanted = value * F.gelu(gate)
    given: dict[str, Any] = {"tile": GemmTile(*tile), "described": described}
    if low:
        x, w = fp8(x), fp8(w * 8)
        given |= {"scale": torch.full((2 * inner,), 1 / 8, device=DEVICE), "out_dtype": torch.float8_e4m3fn}
        tile = (*tile[:2], 2 * tile[2], *tile[3:])
        given["tile"] = GemmTile(*tile)
    return lambda: geglu(x, w, bias, **given), wanted


def geglu_variants(quick: bool) -> list[Variant]:
    if quick:
        return [("Triton GEGLU", {"tile": (32, 32, 32, 4, 2), "described": False, "low": False})]
    return [
        (f"Triton GEGLU{' fp8→fp8' if low else ''} {tile}{' described' if d else ''}",
         {"tile": tile, "described": d, "low": low})
        for low in (False, True) for d in (True, False) for tile in GEMM_TILES
    ]  # fmt: skip


def compile_geglu(width: int, inner: int, options: dict[str, Any]) -> None:
    try:
        geglu_call(256, width, inner, **options)[0]()
    except Exception:
        return


def bench_linear(rows: int, width: int, variants: list[Variant]) -> None:
    from gpu_worker.kernels.geglu import gate

    say(f"linear layers: {rows} rows, width {width}")
    x, wide = rand(rows, width), rand(rows, 4 * width)
    for name, n, k in (("proj", 1, 1), ("qkv", 3, 1), ("GEGLU in", 8, 1), ("FF out", 1, 4)):
        source = x if k == 1 else wide
        weight, bias = rand(n * width, k * width) / (k * width) ** 0.5, rand(n * width)
        flop = 2.0 * rows * n * k * width * width
        show(f"{name}: fp16 linear", lambda s=source, w=weight, b=bias: F.linear(s, w, b), flop)
        if n == 1:
            base = rand(rows, width)
            show(
                f"{name}: fp16 addmm into the residual",
                lambda s=source, w=weight, o=base: o.addmm_(s, w.t(), beta=1),
                flop,
            )
        if CUDA:
            one = torch.ones((), device=DEVICE)
            s8, w8 = fp8(source), fp8(weight).t()
            show(
                f"{name}: fp8 _scaled_mm → fp16",
                lambda s=s8, w=w8, o=one: torch._scaled_mm(
                    s, w, scale_a=o, scale_b=o, out_dtype=DTYPE, use_fast_accum=True
                ),
                flop,
            )
    flop = 2.0 * rows * 8 * width * width
    weight, bias = rand(8 * width, width) / width**0.5, rand(8 * width)

    def unfused() -> Tensor:
        value, gate = F.linear(x, weight, bias).chunk(2, 1)
        return value * F.gelu(gate)

    show("GEGLU: fp16 linear, then value · gelu(gate)", unfused, flop)
    show("GEGLU: fp16 linear, then the gate by Triton", lambda: gate(F.linear(x, weight, bias)), flop)
    both = F.linear(x, weight, bias)
    show("gate by Triton alone", lambda: gate(both), moved=3.0 * both.numel())
    for name, options in variants:
        call, wanted = geglu_call(rows, width, 4 * width, **options)
        show(name, call, flop, wanted=wanted, part=lambda made: made[:64])


def bench_libraries(rows: int, width: int) -> None:
    """The linear layers by cuBLAS and by cuBLASLt; a bias takes torch to the latter in any case."""
    say(f"libraries: {rows} rows, width {width}")
    x, wide = rand(rows, width), rand(rows, 4 * width)
    before = torch.backends.cuda.preferred_blas_library()
    for name, n, k in (("proj", 1, 1), ("qkv", 3, 1), ("GEGLU in", 8, 1), ("FF out", 1, 4)):
        source, out = (x if k == 1 else wide), rand(rows, n * width)
        weight, bias = rand(n * width, k * width) / (k * width) ** 0.5, rand(n * width)
        for library in ("cublas", "cublaslt") if CUDA else ("cublas",):
            torch.backends.cuda.preferred_blas_library(library)
            flop = 2.0 * rows * n * k * width * width
            show(f"{name}, {library}", lambda s=source, w=weight: F.linear(s, w), flop)
            if n == 8:
                show(
                    f"{name} with bias, {library}",
                    lambda s=source, w=weight, b=bias: F.linear(s, w, b),
                    flop,
                )
            if n == 1:
                into = f"{name} into the residual, {library}"
                show(into, lambda s=source, w=weight, o=out: o.addmm_(s, w.t()), flop)
    torch.backends.cuda.preferred_blas_library(before)


# ---------------------------------------------------------------- the rest


def bench_temporal(positions: int, width: int) -> None:
    from gpu_worker.kernels.temporal import temporal_attention

    say(f"temporal attention: {positions} positions, width {width}")
    qkv = rand(FRAMES, positions, 3 * width)
    moved = 2.0 * qkv.numel() * 4 / 3
    for dot in (False, True):
        for block in (1, 2, 4, 8) if CUDA else (8,):
            for warps in (1, 2, 4) if CUDA else (4,):
                show(
                    f"Triton block {block} warps {warps}{' dot' if dot else ''}",
                    lambda b=block, w=warps, d=dot: temporal_attention(
                        qkv, FRAMES, HEADS, block=b, warps=w, dot=d
                    ),
                    moved=moved,
                )  # fmt: skip


def bench_norms(positions: int, width: int) -> None:
    from gpu_worker.kernels import norms, whole_norms
    from gpu_worker.kernels.launch import can_launch_early

    say(f"norms: {FRAMES}×{positions} positions, width {width}")
    x, other = rand(FRAMES, positions, width), rand(FRAMES, positions, width)
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
    bench_whole(positions, width)


def early(call: Callable[[], Tensor]) -> Tensor:
    """A call with programmatic dependent launch; in a row they show the most that it gains."""
    from gpu_worker.kernels.launch import programmatic

    with programmatic(True):
        return call()


def bench_whole(positions: int, width: int) -> None:
    """Group norm by three kernels and by one, of an image alone and of one beside another."""
    from gpu_worker.kernels import norms, whole_norms

    for second in (0, width):
        channels = width + second
        x, weight, bias = rand(FRAMES, positions, width), rand(channels), rand(channels)
        other = rand(FRAMES, positions, second) if second else None
        given: dict[str, Any] = {"weight": weight, "bias": bias, "groups": 32, "eps": 1e-5, "silu": True}

        def sums(x: Tensor = x, other: Tensor | None = other) -> Tensor:
            own = norms.channel_sums(x)
            return own if other is None else torch.cat([own, norms.channel_sums(other)], 3)

        apart = partial(norms.group_norm, x, other, **given)
        whole = partial(whole_norms.group_norm_whole, x, other, **given)
        known, moved = sums(), 4.0 * FRAMES * positions * channels
        name = f"group norm, {channels} channels, "
        show(name + "sums and norm", lambda f=apart, s=sums: f(sums=s()), moved=moved)
        show(name + "given the sums", lambda f=apart, s=known: f(sums=s), moved=moved)
        if whole_norms.held(positions, channels // 32) <= whole_norms.HELD:
            show(name + "in one kernel", whole, moved=moved, wanted=apart(sums=known))


def bench_conv(side: int) -> None:
    say(f"3×3 convolutions, channels_last, from {side}²")
    torch.backends.cudnn.benchmark = True
    for level, c_in, c_out in ((0, 320, 320), (0, 640, 320), (0, 960, 320), (1, 640, 640), (1, 1280, 640),
                               (1, 1920, 640), (2, 1280, 1280), (2, 2560, 1280), (3, 1280, 1280),
                               (0, 4, 320), (0, 320, 4)):  # fmt: skip
        s = side >> level
        x = rand(FRAMES, c_in, s, s).contiguous(memory_format=torch.channels_last)
        w = (rand(c_out, c_in, 3, 3) / (9 * c_in) ** 0.5).contiguous(memory_format=torch.channels_last)
        flop = 2.0 * FRAMES * s * s * 9 * c_in * c_out
        show(f"{c_in} → {c_out} at {s}²", lambda x=x, w=w: F.conv2d(x, w, padding=1), flop)
    for level, c in ((0, 640), (1, 1280)):
        s = side >> level
        x = rand(FRAMES, c, s // 2, s // 2).contiguous(memory_format=torch.channels_last)
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


def main(argv: list[str] | None = None) -> None:
    global FRAMES  # noqa: PLW0603 - the quick run has fewer everywhere
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=768, help="side of the picture")
    parser.add_argument(
        "--only", default="", help="parts: attention,linear,libraries,temporal,norms,conv,ceilings"
    )
    parser.add_argument("--quick", action="store_true", help="tiny shapes")
    args = parser.parse_args(argv)
    if not CUDA:
        os.environ["TRITON_INTERPRET"] = "1"
    say(f"# {torch.cuda.get_device_name() if CUDA else 'CPU'}, torch {torch.__version__}")
    parts = (
        args.only.split(",")
        if args.only
        else ["ceilings", "attention", "linear", "temporal", "norms", "conv"]
    )
    side, widths, sizes = (
        (4, (64,), (40,)) if args.quick else (args.size // 8, (320, 640, 1280), (40, 80, 160))
    )
    FRAMES = 2 if args.quick else 12
    if CUDA and not args.quick:
        compile_all(parts, sizes)
    with torch.inference_mode():
        if "ceilings" in parts and CUDA:
            bench_ceilings()
        for level, size in enumerate(sizes if "attention" in parts else ()):
            bench_attention(side, attention_variants(size, args.quick), level, size)
        for level, width in enumerate(widths):
            positions = (side >> level) ** 2
            if "temporal" in parts:
                bench_temporal(positions, width)
            if "linear" in parts:
                bench_linear(FRAMES * positions, width, geglu_variants(args.quick))
            if "libraries" in parts:
                bench_libraries(FRAMES * positions, width)
            if "norms" in parts:
                bench_norms(positions, width)
        if "norms" in parts and not args.quick:
            bench_norms((side >> 3) ** 2, widths[-1])  # the lowest level
        if "conv" in parts and not args.quick:
            bench_conv(side)


def compile_all(parts: list[str], sizes: tuple[int, ...]) -> None:
    """Fills Triton's cache from several processes."""
    begin = time.perf_counter()
    with ProcessPoolExecutor(12, mp_context=get_context("spawn")) as pool:
        jobs = []
        if "attention" in parts:
            jobs += [
                pool.submit(compile_attention, s, o) for s in sizes for _, o in attention_variants(s, False)
            ]
        if "linear" in parts:
            jobs += [pool.submit(compile_geglu, 320, 1280, o) for _, o in geglu_variants(False)]
        for job in jobs:
            job.result()
    say(f"compiled in {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()
