"""GEGLU's first product with its gate: in CUDA C++, and by cuBLAS and a pass of Triton's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_worker.fast.cuda_kernels import cuda_kernels
from gpu_worker.fast.float8 import quantize
from gpu_worker.fast.kernels.gate import gate
from gpu_worker.fast.triton_ops import float8_linear
from gpu_worker.fast.weights import Linear
from scripts.bench.gpu.kernel_bench.measure import CUDA, rand, say, show


def bench_gated(rows: int, width: int) -> None:
    say(f"GEGLU: {rows} rows, width {width}")
    x, weight, bias = rand(rows, width), rand(8 * width, width) / width**0.5, rand(8 * width) * 0.1
    value, gates = F.linear(x[-64:].float(), weight.float(), bias.float()).chunk(2, 1)
    wanted, flop = value * F.gelu(gates), 2.0 * rows * 8 * width * width
    layer = Linear(weight, bias)
    room = rand(rows, 5 * width)[:, width:]

    def line(name: str, call: Callable[[], Tensor]) -> None:
        show(name, call, flop, wanted=wanted, part=_last)

    line("cuBLAS and a pass", lambda: gate(F.linear(x, weight, bias), out=room))
    kernels = cuda_kernels(torch.device("cuda")) if CUDA else None
    if kernels is None or kernels.gated is None:
        return
    gated = kernels.gated

    def ours(name: str, out: Tensor, *given: Any) -> None:
        def made() -> Tensor:
            gated(out, *given)
            return out

        line(name, made)

    ours("CUDA C++", room, x, weight, bias)
    quantize([layer], [float(x.abs().amax())])
    assert layer.float8 is not None
    x8 = (x.float() * layer.float8.input_scale).to(torch.float8_e4m3fn)
    scale = 1 / (layer.float8.input_scale * layer.float8.weight_scale)
    out8 = torch.empty(rows, 4 * width, dtype=x8.dtype, device="cuda")
    line("float8 to 16 bits: cuBLAS and a pass", lambda: gate(float8_linear(x8, layer), out=room))
    ours("float8 to 16 bits: CUDA C++", room, x8, layer.float8.weight, bias, scale)
    line("float8 to float8: cuBLAS and a pass", lambda: gate(float8_linear(x8, layer), out=out8))
    ours("float8 to float8: CUDA C++", out8, x8, layer.float8.weight, bias, scale)


def _last(x: Tensor) -> Tensor:
    return x[-64:].float()
