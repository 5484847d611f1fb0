"""Keys and values of 2×2 positions merged, in one pass."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _merge(
    kv_ptr, kv_row, kv_batch, out_ptr, width, merged, columns,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    c = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    n = tl.program_id(2).to(tl.int64)
    mask = (r < merged)[:, None] & (c < columns)[None, :]
    first = 2 * (r // (width // 2)) * width + 2 * (r % (width // 2))
    at = kv_ptr + n * kv_batch + first[:, None] * kv_row + c[None, :]
    total = tl.load(at, mask=mask, other=0.0).to(tl.float32)
    total += tl.load(at + kv_row, mask=mask, other=0.0).to(tl.float32)
    total += tl.load(at + width * kv_row, mask=mask, other=0.0).to(tl.float32)
    total += tl.load(at + (width + 1) * kv_row, mask=mask, other=0.0).to(tl.float32)
    total *= tl.where(c < columns // 2, 0.25, 1.0)[None, :]
    to = out_ptr + (n * merged + r[:, None]) * columns + c[None, :]
    tl.store(to, total.to(out_ptr.dtype.element_ty), mask=mask)


def merge(kv: Tensor, height: int, width: int) -> Tensor:
    """kv (N, height · width, 2 · columns), keys then values → a quarter of the positions.

    Keys are averaged, values added. height and width are even. Rows may be strided.
    """
    n, positions, columns = kv.shape
    merged = positions // 4
    assert positions == height * width and kv.stride(2) == 1
    out = torch.empty(n, merged, columns, dtype=kv.dtype, device=kv.device)
    _merge[(triton.cdiv(merged, 4), triton.cdiv(columns, 512), n)](
        kv, kv.stride(1), kv.stride(0), out, width, merged, columns, ROWS=4, COLUMNS=512, num_warps=4,
    )  # fmt: skip
    return out
