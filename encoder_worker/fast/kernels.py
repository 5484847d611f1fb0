"""Triton kernels of the fast KL decoder: convolutions as shifted matrix products, GroupNorm in their tails.

A picture's features lie as rows of channels, every line of w followed by a zero and every frame by a line of
zeros: row y·(w+1) + x of a frame holds position (y, x). A 3×3 convolution is then nine matrix products of the
same matrix, its rows shifted by dy·(w+1) + dx. The chip's tensor copy engine fetches the shifted rows whole,
and gives zeros before the first row and after the last, so no gather is needed. Results for the border (0.4 %
at 512²) are stored as zeros again. Every frame has its own tiles. The last of them stores nothing beyond the
frame. A tile that holds only border multiplies nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _inside(row, h, w):
    """Whether a frame's rows hold positions of the picture, and where."""
    y = row // (w + 1)
    x = row - y * (w + 1)
    return (y < h) & (x < w), y, x


@triton.jit
def _place(tile, frame_rows, BM: tl.constexpr):
    """The frame of a tile of BM rows, and the first of its rows there."""
    tiles = tl.cdiv(frame_rows, BM)
    frame = tile // tiles
    return frame, (tile - frame * tiles) * BM


@triton.jit
def _store_pixels(values, cols, inside, at, out_ptr, bad_ptr):
    """Store columns 0 to 2 of values in -1..1 as 8 bits at `at`. `bad` counts those that are not finite."""
    mask = inside[:, None] & (cols < 3)[None, :]
    finite = tl.abs(values) < 1e30  # false for NaN too
    bad = tl.sum(tl.where(mask & (finite == 0), 1, 0))
    if bad > 0:
        tl.atomic_add(bad_ptr, 1)
    level = tl.floor(tl.minimum(tl.maximum(values * 127.5 + 127.5, 0.0), 255.0) + 0.5)
    tl.store(out_ptr + at.to(tl.int64)[:, None] + cols[None, :], level.to(tl.uint8), mask=mask)


@triton.jit
def conv_kernel(
    a_desc, b_desc, bias_ptr, scale_ptr, residual_ptr, out_ptr, partial_ptr, bad_ptr,
    h, w, frame_rows, out_frame_rows, rows, n_out,
    K_BLOCKS: tl.constexpr, TAPS: tl.constexpr, TAP_W: tl.constexpr, PHASES: tl.constexpr,
    GROUP: tl.constexpr, GROUPS: tl.constexpr, RESIDUAL: tl.constexpr, SCALED: tl.constexpr,
    PIXELS: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, N_TILES: tl.constexpr,
    POINTERS: tl.constexpr,
):  # fmt: skip
    """A tile of rows × output channels of a convolution.

    a: (rows, K) features. b: (PHASES·n_out, TAPS·K) weights. Both are descriptors for the tensor copy engine.
    POINTERS: they are pointers, and threads load, for cards without it.
    PHASES 4: the nearest-neighbour doubling and the 3×3 convolution after it as four 2×2 convolutions, each
    of which makes every fourth pixel of the result.
    GROUP: channels of a GroupNorm group of the result. Its sums go to partial (frame, slot, GROUPS, 2).
    PIXELS: the result is 8-bit RGB (frame, h, w, 3), and `bad` counts tiles with values that are not finite.
    """
    pid = tl.program_id(0)
    column = pid % N_TILES
    phase = (pid // N_TILES) % PHASES
    tile = pid // (N_TILES * PHASES)
    frame, begin = _place(tile, frame_rows, BM)
    first = frame * frame_rows + begin
    col = column * BN
    pa = phase // 2
    pb = phase % 2

    acc = tl.zeros((BM, BN), tl.float32)
    steps = tl.where(begin < h * (w + 1) - 1, TAPS * K_BLOCKS, 0)
    for t in range(steps):
        tap = t // K_BLOCKS
        k = (t - tap * K_BLOCKS) * BK
        if TAPS == 1:
            shift = 0
        elif PHASES == 4:
            shift = (tap // TAP_W + pa - 1) * (w + 1) + (tap % TAP_W + pb - 1)
        else:
            shift = (tap // TAP_W - 1) * (w + 1) + (tap % TAP_W - 1)
        if POINTERS:
            here = first + shift + tl.arange(0, BM)
            depth = tl.arange(0, BK)
            a_at = a_desc + here.to(tl.int64)[:, None] * (K_BLOCKS * BK) + (k + depth)[None, :]
            a = tl.load(a_at, mask=((here >= 0) & (here < rows))[:, None], other=0.0)
            there = phase * n_out + col + tl.arange(0, BN)
            b = tl.load(b_desc + there[:, None] * (TAPS * K_BLOCKS * BK) + (t * BK + depth)[None, :])
        else:
            a = a_desc.load([first + shift, k])
            b = b_desc.load([phase * n_out + col, tap * (K_BLOCKS * BK) + k])
        acc = tl.dot(a, b.T, acc)

    cols = col + tl.arange(0, BN)
    row = begin + tl.arange(0, BM)
    own = (row < frame_rows)[:, None]
    inside, y, x = _inside(row, h, w)
    if SCALED:
        acc = acc * tl.load(scale_ptr + cols)[None, :]
    acc += tl.load(bias_ptr + cols)[None, :]
    if PIXELS:
        _store_pixels(acc, cols, inside, ((frame * h + y) * w + x) * 3, out_ptr, bad_ptr)
    else:
        if RESIDUAL:
            # rows past the frame's are not stored: any will do
            at = (frame * frame_rows + tl.minimum(row, frame_rows - 1)).to(tl.int64) * n_out
            acc += tl.load(residual_ptr + at[:, None] + cols[None, :]).to(tl.float32)
        acc = tl.where(inside[:, None], acc, 0.0)
        if GROUP > 0:
            slot = (tile * PHASES + phase) * GROUPS * 2
            groups = col // GROUP + tl.arange(0, BN // GROUP)
            sums = tl.sum(tl.reshape(tl.sum(acc, 0), (BN // GROUP, GROUP)), 1)
            squares = tl.sum(tl.reshape(tl.sum(acc * acc, 0), (BN // GROUP, GROUP)), 1)
            tl.store(partial_ptr + slot + groups * 2, sums)
            tl.store(partial_ptr + slot + groups * 2 + 1, squares)
        made = acc.to(out_ptr.dtype.element_ty)
        if PHASES == 4:
            to = frame * out_frame_rows + (2 * y + pa) * (2 * w + 1) + 2 * x + pb
            at = to.to(tl.int64) * n_out
            tl.store(out_ptr + at[:, None] + cols[None, :], made, mask=inside[:, None])
        else:
            at = (first + tl.arange(0, BM)).to(tl.int64) * n_out
            tl.store(out_ptr + at[:, None] + cols[None, :], made, mask=own)


@triton.jit
def _rows_of(frame_rows, BM: tl.constexpr):
    """Of a program's BM rows: their frame, numbers in it and in all, and which are its own."""
    frame, begin = _place(tl.program_id(0), frame_rows, BM)
    row = begin + tl.arange(0, BM)
    return frame, row, (frame * frame_rows + row).to(tl.int64), row < frame_rows


@triton.jit
def stats_kernel(
    x_ptr, partial_ptr, frame_rows,
    CHANNELS: tl.constexpr, GROUP: tl.constexpr, GROUPS: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Sums and sums of squares of BM rows by group, as `conv_kernel` leaves them for its own result."""
    _, _, at, own = _rows_of(frame_rows, BM)
    cols = tl.arange(0, CHANNELS)
    at = at[:, None] * CHANNELS + cols[None, :]
    x = tl.load(x_ptr + at, mask=own[:, None], other=0.0).to(tl.float32)
    groups = tl.arange(0, GROUPS)
    sums = tl.sum(tl.reshape(tl.sum(x, 0), (GROUPS, GROUP)), 1)
    squares = tl.sum(tl.reshape(tl.sum(x * x, 0), (GROUPS, GROUP)), 1)
    slot = tl.program_id(0) * GROUPS
    tl.store(partial_ptr + (slot + groups) * 2, sums)
    tl.store(partial_ptr + (slot + groups) * 2 + 1, squares)


@triton.jit
def affine_kernel(
    partial_ptr, gamma_ptr, beta_ptr, affine_ptr, slots, count, eps,
    GROUP: tl.constexpr, GROUPS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Partial sums of a (frame, group) → GroupNorm as x·a + b for its channels. affine: (frame, 2, C)."""
    frame = tl.program_id(0)
    group = tl.program_id(1)
    total = tl.zeros((BLOCK,), tl.float32)
    squares = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, slots, BLOCK):
        slot = start + tl.arange(0, BLOCK)
        at = ((frame * slots + slot) * GROUPS + group) * 2
        total += tl.load(partial_ptr + at, mask=slot < slots, other=0.0)
        squares += tl.load(partial_ptr + at + 1, mask=slot < slots, other=0.0)
    mean = tl.sum(total) / count
    variance = tl.maximum(tl.sum(squares) / count - mean * mean, 0.0)
    channels = group * GROUP + tl.arange(0, GROUP)
    a = tl.load(gamma_ptr + channels) * (1.0 / tl.sqrt(variance + eps))
    b = tl.load(beta_ptr + channels) - mean * a
    to = affine_ptr + frame * 2 * GROUPS * GROUP + channels
    tl.store(to, a)
    tl.store(to + GROUPS * GROUP, b)


@triton.jit
def norm_kernel(
    x_ptr, affine_ptr, out_ptr, h, w, frame_rows, factor, largest,
    CHANNELS: tl.constexpr, SILU: tl.constexpr, SCALED: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """GroupNorm and SiLU of BM rows, zeros on the border. SCALED: times `factor`, for 8-bit arithmetic."""
    frame, row, at, own = _rows_of(frame_rows, BM)
    cols = tl.arange(0, CHANNELS)
    at = at[:, None] * CHANNELS + cols[None, :]
    x = tl.load(x_ptr + at, mask=own[:, None], other=0.0).to(tl.float32)
    a = tl.load(affine_ptr + frame * 2 * CHANNELS + cols)
    b = tl.load(affine_ptr + frame * 2 * CHANNELS + CHANNELS + cols)
    x = x * a[None, :] + b[None, :]
    if SILU:
        x = x / (1.0 + tl.exp(-x))
    if SCALED:
        x = tl.minimum(tl.maximum(x * factor, -largest), largest)
    inside, _, _ = _inside(row, h, w)
    x = tl.where(inside[:, None], x, 0.0)
    tl.store(out_ptr + at, x.to(out_ptr.dtype.element_ty), mask=own[:, None])


@triton.jit
def finish_kernel(
    made_ptr, bias_ptr, residual_ptr, out_ptr, partial_ptr, h, w, frame_rows,
    CHANNELS: tl.constexpr, GROUP: tl.constexpr, GROUPS: tl.constexpr, RESIDUAL: tl.constexpr,
    PHASES: tl.constexpr, SUMS: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Products of cuDNN's + bias [+ residual] → BM rows of the result, zeros on the border.

    made: rows as those of the result. With PHASES 4 it is (frame, h/2 + 2, w/2 + 2, 4, CHANNELS), the four
    2×2 convolutions of a doubling, whose phase 2a + b at (y + a, x + b) belongs at (2y + a, 2x + b).
    SUMS: the result's sums by group go to partial, as `stats_kernel` leaves them.
    """
    frame, row, at, own = _rows_of(frame_rows, BM)
    cols = tl.arange(0, CHANNELS)
    inside, y, x = _inside(row, h, w)
    inside = inside & own
    source = at
    if PHASES == 4:
        a = y % 2
        b = x % 2
        place = (frame * (h // 2 + 2) + y // 2 + a) * (w // 2 + 2) + x // 2 + b
        source = place.to(tl.int64) * 4 + 2 * a + b
    mask = inside[:, None]
    acc = tl.load(made_ptr + source[:, None] * CHANNELS + cols[None, :], mask=mask, other=0.0).to(tl.float32)
    acc += tl.load(bias_ptr + cols)[None, :]
    to = at[:, None] * CHANNELS + cols[None, :]
    if RESIDUAL:
        acc += tl.load(residual_ptr + to, mask=mask, other=0.0).to(tl.float32)
    acc = tl.where(mask, acc, 0.0)
    if SUMS:
        slot = tl.program_id(0) * GROUPS + tl.arange(0, GROUPS)
        sums = tl.sum(tl.reshape(tl.sum(acc, 0), (GROUPS, GROUP)), 1)
        squares = tl.sum(tl.reshape(tl.sum(acc * acc, 0), (GROUPS, GROUP)), 1)
        tl.store(partial_ptr + slot * 2, sums)
        tl.store(partial_ptr + slot * 2 + 1, squares)
    tl.store(out_ptr + to, acc.to(out_ptr.dtype.element_ty), mask=own[:, None])


@triton.jit
def pixels_kernel(
    made_ptr, bias_ptr, out_ptr, bad_ptr, h, w, frame_rows, COLUMNS: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Products of cuDNN's, rows of COLUMNS of which three count, + bias → 8-bit RGB (frame, h, w, 3)."""
    frame, row, at, own = _rows_of(frame_rows, BM)
    cols = tl.arange(0, COLUMNS)
    inside, y, x = _inside(row, h, w)
    inside = inside & own
    values = tl.load(made_ptr + at[:, None] * COLUMNS + cols[None, :], mask=inside[:, None], other=0.0)
    values = values.to(tl.float32) + tl.load(bias_ptr + cols)[None, :]
    _store_pixels(values, cols, inside, ((frame * h + y) * w + x) * 3, out_ptr, bad_ptr)
