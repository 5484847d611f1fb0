"""Temporal attention: over the frames of a clip, at each position by itself.

Sequences are as short as a clip (12) and there are as many as positions, so the work is reading q, k and v
once. One program takes a few positions of one head with all their frames and needs no matrix unit.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from gpu_worker.fast.kernels.launch import await_previous, launch_options


@triton.jit
def _temporal(
    qkv_ptr, out_ptr, positions, row, frame_row, out_row, out_frame, scale,
    FRAMES: tl.constexpr, FRAMES_POW2: tl.constexpr, WIDTH: tl.constexpr,
    SIZE: tl.constexpr, SIZE_POW2: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    await_previous(PDL)
    head = tl.program_id(1)
    clip = tl.program_id(2).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    cols = tl.arange(0, SIZE_POW2)
    keys = tl.arange(0, FRAMES_POW2)
    inside = at < positions
    base = qkv_ptr + clip * FRAMES * frame_row + head * SIZE
    # (positions, frames, size)
    where = at[:, None, None] * row + keys[None, :, None] * frame_row + cols[None, None, :]
    mask = (inside[:, None, None] & (keys < FRAMES)[None, :, None]) & (cols < SIZE)[None, None, :]
    k = tl.load(base + WIDTH + where, mask=mask, other=0.0).to(tl.float32)
    v = tl.load(base + 2 * WIDTH + where, mask=mask, other=0.0).to(tl.float32)
    q_at = base + at[:, None] * row + cols[None, :]
    out_at = out_ptr + clip * FRAMES * out_frame + head * SIZE + at[:, None] * out_row + cols[None, :]
    mask_one = inside[:, None] & (cols < SIZE)[None, :]
    for frame in range(FRAMES):
        q = tl.load(q_at + frame * frame_row, mask=mask_one, other=0.0).to(tl.float32) * scale
        logits = tl.sum(q[:, None, :] * k, 2)
        logits = tl.where((keys < FRAMES)[None, :], logits, float("-inf"))
        p = tl.exp2(logits - tl.max(logits, 1)[:, None])
        p = p / tl.sum(p, 1)[:, None]
        made = tl.sum(p[:, :, None] * v, 1)
        tl.store(out_at + frame * out_frame, made.to(out_ptr.dtype.element_ty), mask=mask_one)


@triton.jit
def _temporal_dot(
    qkv_ptr, out_ptr, positions, row, frame_row, out_row, out_frame, scale,
    FRAMES: tl.constexpr, FRAMES_POW2: tl.constexpr, WIDTH: tl.constexpr,
    SIZE: tl.constexpr, SIZE_POW2: tl.constexpr, BLOCK: tl.constexpr, PDL: tl.constexpr,
):  # fmt: skip
    await_previous(PDL)
    head = tl.program_id(1)
    clip = tl.program_id(2).to(tl.int64)
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    cols = tl.arange(0, SIZE_POW2)
    keys = tl.arange(0, FRAMES_POW2)
    inside = at < positions
    base = qkv_ptr + clip * FRAMES * frame_row + head * SIZE
    where = at[:, None, None] * row + keys[None, :, None] * frame_row + cols[None, None, :]
    mask = (inside[:, None, None] & (keys < FRAMES)[None, :, None]) & (cols < SIZE)[None, None, :]
    q = tl.load(base + where, mask=mask, other=0.0)
    k = tl.load(base + WIDTH + where, mask=mask, other=0.0)
    v = tl.load(base + 2 * WIDTH + where, mask=mask, other=0.0)
    logits = tl.dot(q, tl.permute(k, (0, 2, 1))) * scale
    logits = tl.where((keys < FRAMES)[None, None, :], logits, float("-inf"))
    p = tl.exp2(logits - tl.max(logits, 2)[:, :, None])
    p = p / tl.sum(p, 2)[:, :, None]
    made = tl.dot(p.to(v.dtype), v)
    out_at = out_ptr + clip * FRAMES * out_frame + head * SIZE
    out_where = at[:, None, None] * out_row + keys[None, :, None] * out_frame + cols[None, None, :]
    tl.store(out_at + out_where, made.to(out_ptr.dtype.element_ty), mask=mask)


def temporal_attention(
    qkv: Tensor, frames: int, heads: int, *, block: int = 4, warps: int = 4, dot: bool = False
) -> Tensor:
    """qkv (B·frames, positions, 3·width), q, k and v side by side → (B·frames, positions, width)."""
    batch, positions, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    size = width // heads
    out = torch.empty(batch, positions, width, dtype=qkv.dtype, device=qkv.device)
    grid = (triton.cdiv(positions, block), heads, batch // frames)
    kernel = _temporal_dot if dot else _temporal
    kernel[grid](
        qkv, out, positions, qkv.stride(1), qkv.stride(0), out.stride(1), out.stride(0),
        1.4426950408889634 / size**0.5,
        FRAMES=frames, FRAMES_POW2=max(16, triton.next_power_of_2(frames)) if dot
        else triton.next_power_of_2(frames),
        WIDTH=width, SIZE=size, SIZE_POW2=max(16, triton.next_power_of_2(size)),
        BLOCK=block, num_warps=warps, **launch_options(),
    )  # fmt: skip
    return out
