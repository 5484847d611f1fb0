"""GEGLU's gate (Shazeer 2020, arXiv 2002.05202) in one pass over the feed-forward's wide product.

torch would read and write it three times. On Hopper the product does the same before the wide rows go to
memory (`gated_cuda`).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _gelu(x):
    return 0.5 * x * (1.0 + tl.math.erf(x * 0.7071067811865476))


@triton.jit
def _gate(
    x_ptr, out_ptr, out_row, rows, inner, out_scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, OUT_FP8: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    mask = (r < rows)[:, None] & (c < inner)[None, :]
    at = x_ptr + r[:, None] * 2 * inner + c[None, :]
    value = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    gate = tl.load(at + inner, mask=mask, other=0.0).to(tl.float32)
    made = value * _gelu(gate)
    if OUT_FP8:
        made = tl.minimum(tl.maximum(made * out_scale, -448.0), 448.0)
    tl.store(out_ptr + r[:, None] * out_row + c[None, :], made.to(out_ptr.dtype.element_ty), mask=mask)


def gate(x: Tensor, *, out: Tensor | None = None, out_scale: float = 1.0) -> Tensor:
    """value · gelu(gate) of x (rows, 2·inner), values first → (rows, inner), in one pass.

    out: where to write, rows may be strided. An output in float8 is multiplied by `out_scale` first.
    """
    rows, inner = x.shape[0], x.shape[1] // 2
    if out is None:
        out = x.new_empty(rows, inner)
    _gate[(triton.cdiv(rows, 8), triton.cdiv(inner, 256))](
        x, out, out.stride(0), rows, inner, out_scale, ROWS=8, COLUMNS=256,
        OUT_FP8=out.dtype == torch.float8_e4m3fn, num_warps=4,
    )  # fmt: skip
    return out
