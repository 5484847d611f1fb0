"""Norms that read what they normalise once and keep it in registers, for where launches or lanes are lost.

`kernels.norms` serves every size. Here are:

- the layer norm of rows of 5·2ⁿ channels (320, 640, 1280) as five tiles of 2ⁿ columns, so that no lane is
  masked, where one tile of the next power of two leaves 37 % of them idle, and a row is reduced within one
  warp instead of across several through shared memory;
- the group norm of small images in one kernel instead of three (sums of channels, of groups, and their use):
  a program holds a whole group of one image. The variance is that of the centred values.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gpu_worker.fast.kernels.launch import await_previous, launch_options

PARTS = 5
"""Tiles of a row."""
HELD = 32768
"""Values that a program holds at most, powers of two on both sides: 64 a thread of 16 warps."""


@triton.jit
def _layer_norm_parts(
    x_ptr, x_row, shift_ptr, weight_ptr, bias_ptr, out_ptr, rows, rows_per_bias, biases, eps, out_scale,
    BLOCK: tl.constexpr, PART: tl.constexpr, PARTS: tl.constexpr, SHIFT: tl.constexpr,
    OUT_FP8: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    await_previous(PDL)
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
        held = held + (x,)  # type: ignore[assignment] # noqa: RUF005 - what the compiler knows
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


@triton.jit
def _group_norm_whole(
    x_ptr, second_ptr, shift_ptr, weight_ptr, bias_ptr, correction_ptr, out_ptr, positions, c1, c2, eps,
    POSITIONS_POW2: tl.constexpr, SIZE: tl.constexpr, SIZE_POW2: tl.constexpr, SECOND: tl.constexpr,
    SHIFT: tl.constexpr, CORRECT: tl.constexpr, SILU: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    await_previous(PDL)
    n = tl.program_id(1).to(tl.int64)
    member = tl.arange(0, SIZE_POW2)
    channel = tl.program_id(0) * SIZE + member
    own = member < SIZE
    p = tl.arange(0, POSITIONS_POW2)
    mask = (p < positions)[:, None] & own[None, :]
    row = (n * positions + p)[:, None]
    if SECOND:
        first = mask & (channel < c1)[None, :]
        x = tl.load(x_ptr + row * c1 + channel[None, :], mask=first, other=0.0)
        other = mask & (channel >= c1)[None, :]
        x += tl.load(second_ptr + row * c2 + (channel - c1)[None, :], mask=other, other=0.0)
        x = x.to(tl.float32)
    else:
        x = tl.load(x_ptr + row * c1 + channel[None, :], mask=mask, other=0.0).to(tl.float32)
    if SHIFT:
        x += tl.load(shift_ptr + channel, mask=own, other=0.0).to(tl.float32)[None, :]
    if CORRECT:
        x -= tl.load(correction_ptr + channel, mask=own, other=0.0).to(tl.float32)[None, :]
    count = positions * SIZE
    x = tl.where(mask, x, 0.0)
    mean = tl.sum(tl.sum(x, 0), 0) / count
    x = tl.where(mask, x - mean, 0.0)
    variance = tl.sum(tl.sum(x * x, 0), 0) / count
    weight = tl.load(weight_ptr + channel, mask=own, other=0.0).to(tl.float32) / tl.sqrt(variance + eps)
    bias = tl.load(bias_ptr + channel, mask=own, other=0.0).to(tl.float32)
    y = x * weight[None, :] + bias[None, :]
    if SILU:
        y = y / (1.0 + tl.exp(-y))
    tl.store(out_ptr + row * (c1 + c2) + channel[None, :], y.to(out_ptr.dtype.element_ty), mask=mask)


def in_parts(width: int) -> bool:
    """Whether `layer_norm_in_parts` takes rows of this width: five parts, each of 16 bytes at least."""
    part = width // PARTS
    return width % PARTS == 0 and part >= 8 and part & (part - 1) == 0


def layer_norm_in_parts(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    eps: float = 1e-5,
    shift: Tensor | None = None,
    rows_per_bias: int = 1,
    out_dtype: torch.dtype | None = None,
    out_scale: float = 1.0,
    values: int = 4096,
    warps: int = 4,
) -> Tensor:
    """As `norms.layer_norm`, of widths that `in_parts` takes. values: about how many a program holds."""
    rows, width = x.shape
    out = torch.empty(rows, width, dtype=out_dtype or x.dtype, device=x.device)
    part = width // PARTS
    block = max(1, values // (4 * part))  # the fifth part comes on top
    _layer_norm_parts[(triton.cdiv(rows, block),)](
        x, x.stride(0), x if shift is None else shift, weight, bias, out, rows, rows_per_bias,
        bias.numel() // width, eps, out_scale,
        BLOCK=block, PART=part, PARTS=PARTS, SHIFT=shift is not None,
        OUT_FP8=out.dtype == torch.float8_e4m3fn, num_warps=warps, **launch_options(),
    )  # fmt: skip
    return out


def held(positions: int, size: int) -> int:
    """Values that one program of `group_norm_whole` holds for groups of `size` channels."""
    return triton.next_power_of_2(positions) * triton.next_power_of_2(size)


def group_norm_whole(
    x: Tensor,
    second: Tensor | None,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    eps: float,
    silu: bool,
    shift: Tensor | None = None,
    correction: Tensor | None = None,
) -> Tensor:
    """As `norms.group_norm`, which needs sums beside; for `held(positions, size)` up to `HELD`.

    x (N, positions, c1), second (N, positions, c2) or None → (N, positions, c1 + c2).
    """
    n, positions, c1 = x.shape
    c2 = 0 if second is None else second.shape[2]
    size = (c1 + c2) // groups
    out = torch.empty(n, positions, c1 + c2, dtype=x.dtype, device=x.device)
    warps = min(16, max(4, held(positions, size) // 2048))
    _group_norm_whole[(groups, n)](
        x, x if second is None else second, bias if shift is None else shift, weight, bias,
        bias if correction is None else correction, out, positions, c1, c2, eps,
        POSITIONS_POW2=triton.next_power_of_2(positions), SIZE=size, SIZE_POW2=triton.next_power_of_2(size),
        SECOND=second is not None, SHIFT=shift is not None, CORRECT=correction is not None, SILU=silu,
        num_warps=warps, **launch_options(),
    )  # fmt: skip
    return out
