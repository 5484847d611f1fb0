"""Layer normalisation of rows.

Rows of 5·2ⁿ channels (the denoiser's 320, 640 and 1280) are read as five tiles of 2ⁿ columns: no lane is
masked, where one tile of the next power of two leaves 37 % of them idle, and a row is reduced within one warp
instead of across several through shared memory. Other widths take one masked tile.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Tiles of a row.
PARTS = 5
#: About how many values one program holds.
VALUES = 4096


@triton.jit
def _layer_norm(
    x_ptr, x_row, shift_ptr, weight_ptr, bias_ptr, out_ptr, rows, width, rows_per_bias, biases, eps,
    out_scale, BLOCK: tl.constexpr, WIDTH: tl.constexpr, SHIFT: tl.constexpr, OUT_FP8: tl.constexpr,
):  # fmt: skip
    r = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, WIDTH)
    mask = (r < rows)[:, None] & (c < width)[None, :]
    x = tl.load(x_ptr + r[:, None] * x_row + c[None, :], mask=mask, other=0.0).to(tl.float32)
    if SHIFT:
        x += tl.load(shift_ptr + c, mask=c < width, other=0.0).to(tl.float32)[None, :]
    mean = tl.sum(x, 1) / width
    centred = tl.where(mask, x - mean[:, None], 0.0)
    variance = tl.sum(centred * centred, 1) / width
    y = centred / tl.sqrt(variance + eps)[:, None]
    y *= tl.load(weight_ptr + c, mask=c < width, other=0.0).to(tl.float32)[None, :]
    which = ((r // rows_per_bias) % biases)[:, None] * width + c[None, :]
    y += tl.load(bias_ptr + which, mask=mask, other=0.0).to(tl.float32)
    if OUT_FP8:
        y = tl.minimum(tl.maximum(y * out_scale, -448.0), 448.0)
    tl.store(out_ptr + r[:, None] * width + c[None, :], y.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def _layer_norm_parts(
    x_ptr, x_row, shift_ptr, weight_ptr, bias_ptr, out_ptr, rows, rows_per_bias, biases, eps, out_scale,
    BLOCK: tl.constexpr, PART: tl.constexpr, PARTS: tl.constexpr, SHIFT: tl.constexpr,
    OUT_FP8: tl.constexpr,
):  # fmt: skip
    WIDTH: tl.constexpr = PART * PARTS
    r = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    c = tl.arange(0, PART)
    kept = (r < rows)[:, None]
    x_at = x_ptr + r[:, None] * x_row + c[None, :]
    # a vector's pointers are given for every row: loaded once, it would go to each lane by shared memory
    every = c[None, :] + tl.zeros((BLOCK, 1), tl.int32)
    held = ()
    total = tl.zeros((BLOCK, PART), tl.float32)
    for i in tl.static_range(PARTS):
        x = tl.load(x_at + i * PART, mask=kept, other=0.0).to(tl.float32)
        if SHIFT:
            x += tl.load(shift_ptr + i * PART + every).to(tl.float32)
        total += x
        held = held + (x,)  # type: ignore[assignment] # noqa: RUF005 - Triton's compiler knows no unpacking
    mean = tl.sum(total, 1) / WIDTH
    squares = tl.zeros((BLOCK, PART), tl.float32)
    for i in tl.static_range(PARTS):
        centred = held[i] - mean[:, None]
        squares += centred * centred
    scale = 1.0 / tl.sqrt(tl.sum(squares, 1) / WIDTH + eps)
    bias_at = bias_ptr + ((r // rows_per_bias) % biases)[:, None] * WIDTH + c[None, :]
    out_at = out_ptr + r[:, None] * WIDTH + c[None, :]
    for i in tl.static_range(PARTS):
        weight = tl.load(weight_ptr + i * PART + every).to(tl.float32)
        y = (held[i] - mean[:, None]) * scale[:, None] * weight
        y += tl.load(bias_at + i * PART, mask=kept, other=0.0).to(tl.float32)
        if OUT_FP8:
            y = tl.minimum(tl.maximum(y * out_scale, -448.0), 448.0)
        tl.store(out_at + i * PART, y.to(out_ptr.dtype.element_ty), mask=kept)


def in_parts(width: int) -> bool:
    """Whether rows of this width go in five parts, each of 16 bytes at least."""
    part = width // PARTS
    return width % PARTS == 0 and part >= 8 and part & (part - 1) == 0


def layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float = 1e-5,
    shift: Tensor | None = None,
    rows_per_bias: int = 1,
    out_dtype: torch.dtype | None = None,
    out_scale: float = 1.0,
) -> Tensor:
    """Layer norm of x (rows, width), rows may be strided, + shift (width,).

    bias (width,), or (biases, width) of which each serves `rows_per_bias` rows in turn: the frames' position
    encodings. An output in float8 is multiplied by `out_scale` first.
    """
    rows, width = x.shape
    out = torch.empty(rows, width, dtype=out_dtype or x.dtype, device=x.device)
    given = (x, x.stride(0), x if shift is None else shift, weight, bias, out, rows)
    biases = (rows_per_bias, bias.numel() // width, eps, out_scale)
    options = {"SHIFT": shift is not None, "OUT_FP8": out.dtype == torch.float8_e4m3fn, "num_warps": 4}
    if in_parts(width):
        part = width // PARTS
        block = max(1, VALUES // (4 * part))  # the fifth part comes on top
        grid = (triton.cdiv(rows, block),)
        _layer_norm_parts[grid](*given, *biases, BLOCK=block, PART=part, PARTS=PARTS, **options)
    else:
        wide = triton.next_power_of_2(width)
        block = max(1, VALUES // wide)
        _layer_norm[(triton.cdiv(rows, block),)](*given, width, *biases, BLOCK=block, WIDTH=wide, **options)
    return out
