"""Temporal attention: over the frames of a clip, at each position by itself.

Sequences are as short as a clip (12) and there are as many as positions, so the work is reading q, k and v
once. One program takes a few positions of one head with all their frames, filled up to the matrix units'
least size of 16.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _temporal(
    qkv_ptr, out_ptr, positions, row, frame_row, out_row, out_frame, scale,
    FRAMES: tl.constexpr, FRAMES_POW2: tl.constexpr, WIDTH: tl.constexpr,
    SIZE: tl.constexpr, SIZE_POW2: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
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


def temporal_attention(qkv: Tensor, frames: int, heads: int, *, block: int = 2, warps: int = 4) -> Tensor:
    """qkv (B·frames, positions, 3·width), q, k and v side by side → (B·frames, positions, width).

    block: positions of one program. warps: of one program.
    """
    batch, positions, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
    size = width // heads
    out = torch.empty(batch, positions, width, dtype=qkv.dtype, device=qkv.device)
    _temporal[(triton.cdiv(positions, block), heads, batch // frames)](
        qkv, out, positions, qkv.stride(1), qkv.stride(0), out.stride(1), out.stride(0),
        1.4426950408889634 / size**0.5,
        FRAMES=frames, FRAMES_POW2=max(16, triton.next_power_of_2(frames)), WIDTH=width, SIZE=size,
        SIZE_POW2=max(16, triton.next_power_of_2(size)), BLOCK=block, num_warps=warps,
    )  # fmt: skip
    return out
