"""Group normalisation of channels-last data, and the sums and additions just before it.

Layouts: images are (N, positions, channels), rows of channels. Group statistics are made in two steps: sums
of each channel over a share of the positions, then of each group over its channels and shares. All of it
is in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

#: Channels of one program: 128 bytes of a row, one memory transaction.
CHANNELS = 64


@triton.jit
def _place_in_parts(
    p, n, channel, channels, part, p0, p1, p2, p3, p4, p5, PARTS: tl.constexpr,
):  # fmt: skip
    """Pointers to positions p of image n in PARTS parts, (N, part, channels) at each of the pointers."""
    which = (p // part)[:, None]
    at = (n * part + p % part)[:, None] * channels + channel[None, :]
    place = p0 + at
    place = tl.where(which == 1, p1 + at, place)
    if PARTS > 2:
        place = tl.where(which == 2, p2 + at, place)
    if PARTS > 3:
        place = tl.where(which == 3, p3 + at, place)
    if PARTS > 4:
        place = tl.where(which == 4, p4 + at, place)
        place = tl.where(which == 5, p5 + at, place)
    return place


@triton.jit
def _channel_sums(
    x_ptr, other_ptr, shift_ptr, out_ptr, sums_ptr, positions, channels, share, height, width, part,
    p1_ptr, p2_ptr, p3_ptr, p4_ptr, p5_ptr,
    BLOCK: tl.constexpr, CHANNELS: tl.constexpr, OTHER: tl.constexpr, SHIFT: tl.constexpr,
    WRITE: tl.constexpr, PHASES: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """Sums and sums of squares of x [+ other] [+ shift] over a share of the positions, by channel.

    WRITE: the sum is first written to `out`, in its type. PHASES: x is (N, height + 1, width + 1,
    4, channels); position (2y + a, 2x + b) of the output is its (y + a, x + b, 2a + b).
    PARTS: if not 0, other is in so many parts, (N, part, channels) each at other_ptr, p1_ptr and so on.
    """
    n = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    inside = channel < channels
    first = tl.program_id(0) * share
    rows = tl.arange(0, BLOCK)
    s1 = tl.zeros((BLOCK, CHANNELS), tl.float32)
    s2 = tl.zeros((BLOCK, CHANNELS), tl.float32)
    if SHIFT:
        shift = tl.load(shift_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    for start in range(0, share, BLOCK):
        p = first + start + rows
        mask = (p < positions)[:, None] & inside[None, :]
        at = (n * positions + p)[:, None] * channels + channel[None, :]
        source = at
        if PHASES:
            row, column = p // (2 * width), p % (2 * width)
            a, b = row % 2, column % 2
            place = (n * (height + 1) + row // 2 + a) * (width + 1) + column // 2 + b
            source = (place * 4 + 2 * a + b)[:, None] * channels + channel[None, :]
        x = tl.load(x_ptr + source, mask=mask, other=0.0).to(tl.float32)
        if OTHER:
            if PARTS:
                place = _place_in_parts(
                    p, n, channel, channels, part, other_ptr, p1_ptr, p2_ptr, p3_ptr, p4_ptr, p5_ptr, PARTS
                )
            else:
                place = other_ptr + at
            x += tl.load(place, mask=mask, other=0.0).to(tl.float32)
        if SHIFT:
            x += tl.where(mask, shift[None, :], 0.0)
        if WRITE:
            written = x.to(out_ptr.dtype.element_ty)
            tl.store(out_ptr + at, written, mask=mask)
            x = written.to(tl.float32)
        s1 += x
        s2 += x * x
    to = sums_ptr + (n * tl.num_programs(0) + tl.program_id(0)) * 2 * channels + channel
    tl.store(to, tl.sum(s1, 0), mask=inside)
    tl.store(to + channels, tl.sum(s2, 0), mask=inside)


@triton.jit
def _group_affine(
    sums_ptr, weight_ptr, bias_ptr, correction_ptr, affine_ptr, channels, count, eps,
    SHARES: tl.constexpr, SHARES_POW2: tl.constexpr, SIZE: tl.constexpr, SIZE_POW2: tl.constexpr,
    CORRECT: tl.constexpr,
):  # fmt: skip
    """Sums of a group's channels → a and b of each, so that the normalised value is a·x + b.

    CORRECT: the data has a constant `correction` per channel too much, which is taken off.
    """
    n = tl.program_id(1).to(tl.int64)
    member = tl.arange(0, SIZE_POW2)
    channel = tl.program_id(0) * SIZE + member
    shares = tl.arange(0, SHARES_POW2)
    mask = (shares < SHARES)[:, None] & (member < SIZE)[None, :]
    at = sums_ptr + (n * SHARES + shares)[:, None] * 2 * channels + channel[None, :]
    s1 = tl.sum(tl.load(at, mask=mask, other=0.0), 0)
    s2 = tl.sum(tl.load(at + channels, mask=mask, other=0.0), 0)
    own = member < SIZE
    weight = tl.load(weight_ptr + channel, mask=own, other=0.0).to(tl.float32)
    bias = tl.load(bias_ptr + channel, mask=own, other=0.0).to(tl.float32)
    excess = tl.zeros((SIZE_POW2,), tl.float32)
    if CORRECT:
        excess = tl.load(correction_ptr + channel, mask=own, other=0.0).to(tl.float32)
        positions = count / SIZE
        s2 = s2 - 2.0 * excess * s1 + positions * excess * excess
        s1 = s1 - positions * excess
    mean = tl.sum(s1, 0) / count
    variance = tl.maximum(tl.sum(s2, 0) / count - mean * mean, 0.0)
    a = weight / tl.sqrt(variance + eps)
    to = affine_ptr + n * 2 * channels + channel
    tl.store(to, a, mask=own)
    tl.store(to + channels, bias - (mean + excess) * a, mask=own)


@triton.jit
def _apply_affine(
    x_ptr, second_ptr, shift_ptr, affine_ptr, out_ptr, positions, c1, c2, part,
    p1_ptr, p2_ptr, p3_ptr, p4_ptr, p5_ptr,
    BLOCK: tl.constexpr, CHANNELS: tl.constexpr, SECOND: tl.constexpr, SHIFT: tl.constexpr,
    SILU: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """out = a·(x ; second) + b [and SiLU].

    PARTS: if not 0, out is in so many parts, (N, part, channels) each at out_ptr, p1_ptr and so on. Those
    beyond the positions become 0.
    """
    n = tl.program_id(2).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    channels = c1 + c2
    inside = channel < channels
    p = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = (p < positions)[:, None] & inside[None, :]
    a = tl.load(affine_ptr + n * 2 * channels + channel, mask=inside, other=0.0)
    b = tl.load(affine_ptr + n * 2 * channels + channels + channel, mask=inside, other=0.0)
    if SHIFT:
        b += a * tl.load(shift_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    row = (n * positions + p)[:, None]
    if SECOND:
        x = tl.load(x_ptr + row * c1 + channel[None, :], mask=mask & (channel < c1)[None, :], other=0.0)
        at = row * c2 + (channel - c1)[None, :]
        x += tl.load(second_ptr + at, mask=mask & (channel >= c1)[None, :], other=0.0)
        x = x.to(tl.float32)
    else:
        x = tl.load(x_ptr + row * c1 + channel[None, :], mask=mask, other=0.0).to(tl.float32)
    y = a[None, :] * x + b[None, :]
    if SILU:
        y = y / (1.0 + tl.exp(-y))
    y = y.to(out_ptr.dtype.element_ty)
    if PARTS:
        y = tl.where((p < positions)[:, None], y, 0.0).to(out_ptr.dtype.element_ty)
        place = _place_in_parts(
            p, n, channel, channels, part, out_ptr, p1_ptr, p2_ptr, p3_ptr, p4_ptr, p5_ptr, PARTS
        )
        tl.store(place, y, mask=(p < PARTS * part)[:, None] & inside[None, :])
    else:
        tl.store(out_ptr + row * channels + channel[None, :], y, mask=mask)


def _share(positions: int) -> int:
    """Positions that one program sums: enough programs for a GPU at 12 frames, whatever the channels."""
    wanted: int = triton.next_power_of_2(triton.cdiv(positions, 18))
    return max(64, min(512, wanted))


def _pointers(parts: Sequence[Tensor], other: Tensor) -> list[Any]:
    """Positions of a part, and the parts but the first, which `other` stands for where there are fewer."""
    rest = [*parts[1:], *[other] * 5][:5]
    return [parts[0].shape[1] if parts else 0, *rest]


def channel_sums(x: Tensor, *, shift: Tensor | None = None) -> Tensor:
    """Sums for `group_norm`: float32 (N, shares, 2, channels) of x (N, positions, channels) + shift.

    shift: (channels,) or None.
    The sums of images side by side are those of each, joined in the last dimension.
    """
    return _sums(x, None, shift, None)


def add_with_sums(x: Tensor, other: Tensor | None, shift: Tensor | None, out: Tensor) -> Tensor:
    """Writes x + other + shift to `out` (which may be x) and returns its `channel_sums`."""
    return _sums(x, other, shift, out)


def add_parts_with_sums(x: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """x (N, positions, channels) += parts (N, positions of one, channels) each. Returns its `channel_sums`.

    There are 2 to 6 parts, in one another's or in other GPUs' memory. The last ones may have more positions
    than x has left.
    """
    return _sums(x, parts[0], None, x, parts=parts)


def interleave_with_sums(x: Tensor, height: int, width: int, shift: Tensor) -> tuple[Tensor, Tensor]:
    """The four phases of an up-sampling convolution to one image, + shift, and its `channel_sums`.

    x (N, (height + 1)·(width + 1), 4·channels): its value at (y + a, x + b, 2a + b) goes to (2y + a, 2x + b).
    """
    out = torch.empty(len(x), 4 * height * width, x.shape[2] // 4, dtype=x.dtype, device=x.device)
    return out, _sums(x, None, shift, out, (height, width))


def _sums(
    x: Tensor, other: Tensor | None, shift: Tensor | None, out: Tensor | None,
    phases: tuple[int, int] | None = None, parts: Sequence[Tensor] = (),
) -> Tensor:  # fmt: skip
    n, positions, channels = x.shape if out is None else out.shape
    share = _share(positions)
    shares = triton.cdiv(positions, share)
    sums = torch.empty(n, shares, 2, channels, dtype=torch.float32, device=x.device)
    _channel_sums[(shares, triton.cdiv(channels, CHANNELS), n)](
        x, x if other is None else other, x if shift is None else shift, x if out is None else out, sums,
        positions, channels, share, *(phases or (0, 0)), *_pointers(parts, x),
        BLOCK=32, CHANNELS=CHANNELS, OTHER=other is not None, SHIFT=shift is not None, WRITE=out is not None,
        PHASES=phases is not None, PARTS=len(parts), num_warps=4,
    )  # fmt: skip
    return sums


def group_norm(
    x: Tensor,
    second: Tensor | None,
    sums: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    eps: float,
    silu: bool,
    shift: Tensor | None = None,
    correction: Tensor | None = None,
    parts: Sequence[Tensor] = (),
) -> Tensor:
    """Group norm of (x ; second) + shift − correction, from `channel_sums` with the same shift, [and SiLU].

    x (N, positions, c1), second (N, positions, c2) or None → (N, positions, c1 + c2). shift and correction
    (channels,): constants that the stored data lack or have too much.
    parts: 2 to 6, where the result goes, (N, positions of one, c1 + c2) each. The last ones are filled up
    with zeros. Without them the result has a place of its own.
    """
    n, positions, c1 = x.shape
    channels, size = sums.shape[3], sums.shape[3] // groups
    affine = torch.empty(n, 2, channels, dtype=torch.float32, device=x.device)
    _group_affine[(groups, n)](
        sums, weight, bias, bias if correction is None else correction, affine, channels,
        float(positions * size), eps, SHARES=sums.shape[1], SHARES_POW2=triton.next_power_of_2(sums.shape[1]),
        SIZE=size, SIZE_POW2=triton.next_power_of_2(size), CORRECT=correction is not None, num_warps=4,
    )  # fmt: skip
    out = parts[0] if parts else torch.empty(n, positions, channels, dtype=x.dtype, device=x.device)
    block = 64
    rows = len(parts) * parts[0].shape[1] if parts else positions
    _apply_affine[(triton.cdiv(rows, block), triton.cdiv(channels, CHANNELS), n)](
        x, x if second is None else second, bias if shift is None else shift, affine, out,
        positions, c1, channels - c1, *_pointers(parts, x),
        BLOCK=block, CHANNELS=CHANNELS, SECOND=channels > c1, SHIFT=shift is not None, SILU=silu,
        PARTS=len(parts), num_warps=4,
    )  # fmt: skip
    return out
