"""Spatial attention over two sources of keys, the frame's own and the reference's, in one pass.

The algorithm is the online softmax of FlashAttention (Dao et al. 2022, arXiv 2205.14135). What is done for
heads of 40, whose size suits no matrix unit:

- A head of 40 is stored with columns to spare, as 64 or as 48 = 32 + 16, so that nothing is masked.
- The first spare column of the values is 1, so that the sum of the probabilities comes out of the same
  product as the output.
- Keys and values of the reference are read where they lie; nothing is concatenated or repeated per frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor


@dataclass(frozen=True)
class Tile:
    """Sizes of one program's work: queries and keys at a time, warps, pipeline stages.

    narrow: logits are made from two parts of a head's columns that hold no more than needed, 40 of 64 as
    32 + 16, so a quarter fewer products of the matrix units.
    """

    queries: int
    keys: int
    warps: int
    stages: int
    narrow: bool = False


@triton.jit
def _over_keys(
    out_a, out_b, total, top, q_a, q_b, keys, values, stride, length,
    KEYS: tl.constexpr, QA: tl.constexpr, QB: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
    ONES: tl.constexpr, EVEN: tl.constexpr,
):  # fmt: skip
    """One source's keys folded into the running output, sum and maximum of a block of queries."""
    rows = tl.arange(0, KEYS)
    logit_a = tl.arange(0, QA)
    cols_a = tl.arange(0, A)
    for start in range(0, length, KEYS):
        at = (start + rows) * stride
        inside = start + rows < length
        if EVEN:
            k_a = tl.load(keys + at[None, :] + logit_a[:, None])
        else:
            k_a = tl.load(keys + at[None, :] + logit_a[:, None], mask=inside[None, :], other=0.0)
        logits = tl.dot(q_a, k_a)
        if QB > 0:
            logit_b = QA + tl.arange(0, QB)
            if EVEN:
                k_b = tl.load(keys + at[None, :] + logit_b[:, None])
            else:
                k_b = tl.load(keys + at[None, :] + logit_b[:, None], mask=inside[None, :], other=0.0)
            logits = tl.dot(q_b, k_b, logits)
        if not EVEN:
            logits = tl.where(inside[None, :], logits, float("-inf"))
        new_top = tl.maximum(top, tl.max(logits, 1))
        p = tl.exp2(logits - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        if not ONES:
            total = total * shrink + tl.sum(p, 1)
        if EVEN:
            v_a = tl.load(values + at[:, None] + cols_a[None, :])
        else:
            v_a = tl.load(values + at[:, None] + cols_a[None, :], mask=inside[:, None], other=0.0)
        p = p.to(v_a.dtype)
        out_a = tl.dot(p, v_a, out_a * shrink[:, None])
        if B > 0:
            cols_b = A + tl.arange(0, B)
            if EVEN:
                v_b = tl.load(values + at[:, None] + cols_b[None, :])
            else:
                v_b = tl.load(values + at[:, None] + cols_b[None, :], mask=inside[:, None], other=0.0)
            out_b = tl.dot(p, v_b, out_b * shrink[:, None])
        top = new_top
    return out_a, out_b, total, top


@triton.jit
def _attention(
    q_ptr, q_stride, q_batch, k_ptr, v_ptr, kv_stride, kv_batch, length,
    rk_ptr, rv_ptr, ref_stride, ref_batch, ref_length, share,
    out_ptr, out_stride, out_batch, queries,
    SIZE: tl.constexpr, QA: tl.constexpr, QB: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, HEADS: tl.constexpr, TWO: tl.constexpr, ONES: tl.constexpr,
    EVEN_Q: tl.constexpr, EVEN_K: tl.constexpr, EVEN_R: tl.constexpr,
):  # fmt: skip
    WIDE: tl.constexpr = A + B
    head = tl.program_id(1) % HEADS
    batch = (tl.program_id(1) // HEADS).to(tl.int64)
    rows = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    kept = rows < queries
    logit_a = tl.arange(0, QA)
    q_at = q_ptr + batch * q_batch + head * WIDE + rows[:, None] * q_stride
    if EVEN_Q:
        q_a = tl.load(q_at + logit_a[None, :])
    else:
        q_a = tl.load(q_at + logit_a[None, :], mask=kept[:, None], other=0.0)
    q_b = q_a
    if QB > 0:
        logit_b = QA + tl.arange(0, QB)
        if EVEN_Q:
            q_b = tl.load(q_at + logit_b[None, :])
        else:
            q_b = tl.load(q_at + logit_b[None, :], mask=kept[:, None], other=0.0)
    cols_a = tl.arange(0, A)
    out_a = tl.zeros((QUERIES, A), tl.float32)
    out_b = out_a
    if B > 0:
        cols_b = A + tl.arange(0, B)
        out_b = tl.zeros((QUERIES, B), tl.float32)
    total = tl.zeros((QUERIES,), tl.float32)
    top = tl.full((QUERIES,), float("-inf"), tl.float32)
    at = batch * kv_batch + head * WIDE
    out_a, out_b, total, top = _over_keys(
        out_a, out_b, total, top, q_a, q_b, k_ptr + at, v_ptr + at, kv_stride, length,
        KEYS, QA, QB, A, B, ONES, EVEN_K,
    )  # fmt: skip
    if TWO:
        at = (batch // share) * ref_batch + head * WIDE
        out_a, out_b, total, top = _over_keys(
            out_a, out_b, total, top, q_a, q_b, rk_ptr + at, rv_ptr + at, ref_stride, ref_length,
            KEYS, QA, QB, A, B, ONES, EVEN_R,
        )  # fmt: skip
    if ONES:
        if B > 0:
            total = tl.sum(tl.where(tl.arange(0, B)[None, :] == SIZE - A, out_b, 0.0), 1)
        else:
            total = tl.sum(tl.where(cols_a[None, :] == SIZE, out_a, 0.0), 1)
    out_at = out_ptr + batch * out_batch + head * SIZE + rows[:, None] * out_stride
    result = (out_a / total[:, None]).to(out_ptr.dtype.element_ty)
    tl.store(out_at + cols_a[None, :], result, mask=kept[:, None] & (cols_a < SIZE)[None, :])
    if B > 0:
        result = (out_b / total[:, None]).to(out_ptr.dtype.element_ty)
        tl.store(out_at + cols_b[None, :], result, mask=kept[:, None] & (cols_b < SIZE)[None, :])


def two_source_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    ref_k: Tensor | None,
    ref_v: Tensor | None,
    *,
    heads: int,
    size: int,
    split: tuple[int, int],
    tile: Tile,
) -> Tensor:
    """softmax(q · [k ; ref_k]ᵀ) · [v ; ref_v] with base-2 logits; → (N, queries, heads · size).

    q (N, queries, heads · P), k and v (N, keys, heads · P) with P = sum(split) columns a head, of which the
    first `size` count and the others are 0, except that column `size` of the values is 1 where P > size.
    ref_k, ref_v (N / share, keys, heads · P), each used by `share` consecutive items of the batch; or None.
    The scale log2(e)/√size is in q already. Rows may be strided, columns not.
    """
    batch, queries, _ = q.shape
    a, b = split
    logit_a, logit_b = narrow_split(size) if tile.narrow else split
    assert logit_a + logit_b <= a + b
    out = torch.empty(batch, queries, heads * size, dtype=q.dtype, device=q.device)
    two = ref_k is not None
    rk, rv = (ref_k, ref_v) if ref_k is not None and ref_v is not None else (k, v)
    assert k.stride() == v.stride() and rk.stride() == rv.stride()
    grid = (triton.cdiv(queries, tile.queries), batch * heads)
    _attention[grid](
        q, q.stride(1), q.stride(0), k, v, k.stride(1), k.stride(0), k.shape[1],
        rk, rv, rk.stride(1), rk.stride(0), rk.shape[1], batch // rk.shape[0],
        out, out.stride(1), out.stride(0), queries,
        SIZE=size, QA=logit_a, QB=logit_b, A=a, B=b, QUERIES=tile.queries, KEYS=tile.keys,
        HEADS=heads, TWO=two, ONES=a + b > size,
        EVEN_Q=queries % tile.queries == 0, EVEN_K=k.shape[1] % tile.keys == 0,
        EVEN_R=rk.shape[1] % tile.keys == 0, num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
    return out


def attention_split(size: int) -> tuple[int, int]:
    """How a head's columns are stored: two powers of two, of which the second may be 0.

    One power of two where that is less than twice the size; 40 → (64, 0), 80 → (64, 16).
    """
    a = max(16, 1 << (size - 1).bit_length())
    if a == 16 or (a < 2 * size and a <= 64):
        return a, 0
    a //= 2
    return a, max(16, 1 << (size - a - 1).bit_length())


def narrow_split(size: int) -> tuple[int, int]:
    """The fewest columns that hold a head in two powers of two of at least 16; 40 → (32, 16)."""
    a = max(16, 1 << (size.bit_length() - 1))
    return a, 0 if size <= a else max(16, 1 << (size - a - 1).bit_length())
