"""Linear layers and GEGLU."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import _scaled_mm as scaled_mm

from scripts.bench.gpu.kernel_bench.measure import CUDA, DEVICE, DTYPE, rand, say, show


def fp8(x: Tensor) -> Tensor:
    return x.to(torch.float8_e4m3fn)


def bench_linear(rows: int, width: int) -> None:
    from gpu_worker.fast.kernels.gate import gate

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
                lambda s=s8, w=w8, o=one: scaled_mm(
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


def bench_libraries(rows: int, width: int) -> None:
    """The linear layers by cuBLAS and by cuBLASLt. A bias takes torch to the latter in any case."""
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
