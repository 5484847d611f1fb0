"""Times the fast path's kernels and their rivals at the denoiser's real shapes.

`python -m scripts.bench.gpu.kernel_bench` prints a line a variant: milliseconds (median),
the rate it reaches and its error. `--quick` runs tiny shapes, on a CPU through Triton's interpreter. It is
how tiles were chosen.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch

from scripts.bench.gpu.kernel_bench.attention import attention_variants, bench_attention, compile_attention
from scripts.bench.gpu.kernel_bench.gated import bench_gated
from scripts.bench.gpu.kernel_bench.linear import bench_libraries, bench_linear
from scripts.bench.gpu.kernel_bench.measure import CUDA, say
from scripts.bench.gpu.kernel_bench.others import (
    bench_ceilings,
    bench_conv,
    bench_merge,
    bench_norms,
    bench_temporal,
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=768, help="side of the picture")
    parser.add_argument(
        "--only",
        default="",
        help="parts: attention,merge,linear,gated,libraries,temporal,norms,conv,ceilings",
    )
    parser.add_argument("--quick", action="store_true", help="tiny shapes")
    args = parser.parse_args(argv)
    if not CUDA:
        os.environ["TRITON_INTERPRET"] = "1"
    say(f"# {torch.cuda.get_device_name() if CUDA else 'CPU'}, torch {torch.__version__}")
    parts = (
        args.only.split(",")
        if args.only
        else ["ceilings", "attention", "merge", "linear", "temporal", "norms", "conv"]
    )
    side, widths, sizes = (
        (4, (64,), (40,)) if args.quick else (args.size // 8, (320, 640, 1280), (40, 80, 160))
    )
    frames = 2 if args.quick else 12
    if CUDA and not args.quick:
        compile_all(parts, sizes)
    with torch.inference_mode():
        if "ceilings" in parts and CUDA:
            bench_ceilings()
        for level, size in enumerate(sizes if "attention" in parts else ()):
            bench_attention(frames, side, attention_variants(size, args.quick), level, size)
        if "merge" in parts:
            bench_merge(frames, side)
        for level, width in enumerate(widths):
            positions = (side >> level) ** 2
            if "temporal" in parts:
                bench_temporal(frames, positions, width)
            if "linear" in parts:
                bench_linear(frames * positions, width)
            if "gated" in parts:
                bench_gated(frames * positions, width)
            if "libraries" in parts:
                bench_libraries(frames * positions, width)
            if "norms" in parts:
                bench_norms(frames, positions, width)
        if "norms" in parts and not args.quick:
            bench_norms(frames, (side >> 3) ** 2, widths[-1])  # the lowest level
        if "conv" in parts and not args.quick:
            bench_conv(frames, side)


def compile_all(parts: list[str], sizes: tuple[int, ...]) -> None:
    """Fills Triton's cache from several processes."""
    begin = time.perf_counter()
    with ProcessPoolExecutor(12, mp_context=get_context("spawn")) as pool:
        jobs = []
        if "attention" in parts:
            jobs += [
                pool.submit(compile_attention, s, o) for s in sizes for _, o in attention_variants(s, False)
            ]
        for job in jobs:
            job.result()
    say(f"compiled in {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()
