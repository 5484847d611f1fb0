"""The first linear layer of a GEGLU feed-forward (Shazeer 2020, arXiv 2002.05202) with its gate.

value · gelu(gate) is formed from the accumulators, so the eight times wider product is never written: half of
the result's bytes and none of the second pass. Both halves of a tile share the rows of `x` they read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from gpu_worker.fast.kernels.launch import await_previous, launch_options


@dataclass(frozen=True)
class GemmTile:
    """Rows, columns (of each half) and depth of a tile, warps, pipeline stages."""

    rows: int
    columns: int
    depth: int
    warps: int
    stages: int


@triton.jit
def _place(tile, rows_of_tiles, columns_of_tiles, GROUP: tl.constexpr):
    """Tile number → its row and column: GROUP rows of tiles at a time, so that L2 holds what they share."""
    group = tile // (GROUP * columns_of_tiles)
    first = group * GROUP
    height = tl.minimum(rows_of_tiles - first, GROUP)
    inside = tile % (GROUP * columns_of_tiles)
    return first + inside % height, inside // height


@triton.jit
def _gelu(x):
    return 0.5 * x * (1.0 + tl.math.erf(x * 0.7071067811865476))


@triton.jit
def _gate(
    x_ptr, out_ptr, out_row, rows, inner, out_scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, OUT_FP8: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    await_previous(PDL)
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


@triton.jit
def _finish(
    value, gate, bias_ptr, scale_ptr, c_in, inner, out_scale, SCALED: tl.constexpr, OUT_FP8: tl.constexpr
):
    """value · gelu(gate) of both products' sums, float32, after scales and biases."""
    if SCALED:
        value = value * tl.load(scale_ptr + c_in)[None, :]
        gate = gate * tl.load(scale_ptr + inner + c_in)[None, :]
    value += tl.load(bias_ptr + c_in)[None, :].to(tl.float32)
    gate += tl.load(bias_ptr + inner + c_in)[None, :].to(tl.float32)
    made = value * _gelu(gate)
    if OUT_FP8:
        made = tl.minimum(tl.maximum(made * out_scale, -448.0), 448.0)
    return made


@triton.jit
def _geglu(
    x_ptr, x_row, w_ptr, bias_ptr, scale_ptr, out_ptr, rows, inner, width, out_scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
    EVEN: tl.constexpr, SCALED: tl.constexpr, OUT_FP8: tl.constexpr,
):  # fmt: skip
    tile_row, tile_column = _place(tl.program_id(0), tl.cdiv(rows, ROWS), tl.cdiv(inner, COLUMNS), GROUP)
    r = (tile_row * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    c = tile_column * COLUMNS + tl.arange(0, COLUMNS)
    d = tl.arange(0, DEPTH)
    r_in = r % rows  # a tile's rows beyond the last compute something that is not stored
    c_in = c % inner
    x_at = x_ptr + r_in[:, None] * x_row + d[None, :]
    value_at = w_ptr + c_in[None, :] * width + d[:, None]
    gate_at = value_at + inner * width
    value = tl.zeros((ROWS, COLUMNS), tl.float32)
    gate = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, width, DEPTH):
        if EVEN:
            x = tl.load(x_at)
            wv = tl.load(value_at)
            wg = tl.load(gate_at)
        else:
            x = tl.load(x_at, mask=(start + d < width)[None, :], other=0.0)
            wv = tl.load(value_at, mask=(start + d < width)[:, None], other=0.0)
            wg = tl.load(gate_at, mask=(start + d < width)[:, None], other=0.0)
        value = tl.dot(x, wv, value)
        gate = tl.dot(x, wg, gate)
        x_at += DEPTH
        value_at += DEPTH
        gate_at += DEPTH
    made = _finish(value, gate, bias_ptr, scale_ptr, c_in, inner, out_scale, SCALED, OUT_FP8)
    out_at = out_ptr + r[:, None] * inner + c[None, :]
    tl.store(out_at, made.to(out_ptr.dtype.element_ty), mask=(r < rows)[:, None] & (c < inner)[None, :])


@triton.jit
def _geglu_described(
    x_desc, value_desc, gate_desc, bias_ptr, scale_ptr, out_desc, rows, inner, width, out_scale,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr, GROUP: tl.constexpr,
    SCALED: tl.constexpr, OUT_FP8: tl.constexpr,
):  # fmt: skip
    tile_row, tile_column = _place(tl.program_id(0), tl.cdiv(rows, ROWS), tl.cdiv(inner, COLUMNS), GROUP)
    value = tl.zeros((ROWS, COLUMNS), tl.float32)
    gate = tl.zeros((ROWS, COLUMNS), tl.float32)
    for start in range(0, width, DEPTH):
        x = x_desc.load([tile_row * ROWS, start])
        wv = value_desc.load([tile_column * COLUMNS, start])
        wg = gate_desc.load([tile_column * COLUMNS, start])
        value = tl.dot(x, wv.T, value)
        gate = tl.dot(x, wg.T, gate)
    c = tile_column * COLUMNS + tl.arange(0, COLUMNS)
    c_in = c % inner
    made = _finish(value, gate, bias_ptr, scale_ptr, c_in, inner, out_scale, SCALED, OUT_FP8)
    out_desc.store([tile_row * ROWS, tile_column * COLUMNS], made.to(out_desc.dtype))


def geglu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    tile: GemmTile,
    scale: Tensor | None = None,
    out_dtype: torch.dtype | None = None,
    out_scale: float = 1.0,
    described: bool = False,
) -> Tensor:
    """(x·Wvᵀ + bv) · gelu(x·Wgᵀ + bg); x (rows, width), weight (2·inner, width) → (rows, inner).

    With x and weight in float8, `scale` (2·inner,) turns each column's product back into its unit. An output
    in float8 is multiplied by `out_scale` first. `described` reads through tensor descriptors (Hopper's
    bulk copies) instead of pointers.
    """
    rows, width = x.shape
    inner = weight.shape[0] // 2
    out = torch.empty(rows, inner, dtype=out_dtype or x.dtype, device=x.device)
    grid = (triton.cdiv(rows, tile.rows) * triton.cdiv(inner, tile.columns),)
    fp8 = out.dtype == torch.float8_e4m3fn
    scales = bias if scale is None else scale
    if described:
        from triton.tools.tensor_descriptor import TensorDescriptor

        halves = [TensorDescriptor.from_tensor(w, [tile.columns, tile.depth]) for w in weight.chunk(2)]
        _geglu_described[grid](
            TensorDescriptor.from_tensor(x, [tile.rows, tile.depth]), *halves, bias, scales,
            TensorDescriptor.from_tensor(out, [tile.rows, tile.columns]), rows, inner, width, out_scale,
            ROWS=tile.rows, COLUMNS=tile.columns, DEPTH=tile.depth, GROUP=8, SCALED=scale is not None,
            OUT_FP8=fp8, num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        return out
    _geglu[grid](
        x, x.stride(0), weight, bias, scales, out, rows, inner, width, out_scale,
        ROWS=tile.rows, COLUMNS=tile.columns, DEPTH=tile.depth, GROUP=8, EVEN=width % tile.depth == 0,
        SCALED=scale is not None, OUT_FP8=fp8, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return out


def gate(
    x: Tensor, *, out: Tensor | None = None, out_dtype: torch.dtype | None = None, out_scale: float = 1.0
) -> Tensor:
    """value · gelu(gate) of x (rows, 2·inner), values first → (rows, inner), in one pass.

    out: where to write, rows may be strided. An output in float8 is multiplied by `out_scale` first.
    """
    rows, inner = x.shape[0], x.shape[1] // 2
    if out is None:
        out = torch.empty(rows, inner, dtype=out_dtype or x.dtype, device=x.device)
    _gate[(triton.cdiv(rows, 8), triton.cdiv(inner, 256))](
        x, out, out.stride(0), rows, inner, out_scale, ROWS=8, COLUMNS=256,
        OUT_FP8=out.dtype == torch.float8_e4m3fn, num_warps=4, **launch_options(),
    )  # fmt: skip
    return out
