"""Spatial attention over two sources of keys, the frame's own and the reference's, in one pass.

The algorithm is the online softmax of FlashAttention (Dao et al. 2022, arXiv 2205.14135). Heads of 40
suit no matrix unit, so:

- A head of 40 is stored with columns to spare, as 64 or as 48 = 32 + 16, so that nothing is masked.
- The first spare column of the values is 1, so that the sum of the probabilities comes out of the same
  product as the output.
- Keys and values of the reference are read where they lie. Nothing is concatenated or repeated per frame.
- Softmax does not change when one number is taken off all of a query's logits. `_sampled_attention` takes off
  the largest over a sample of the keys, within the product that makes the logits: the first spare column of
  the keys is 1 and that of the queries is the negated maximum. There is no running maximum to find and no
  output to shrink, so a block of keys need not wait for the one before. Where a logit is so much larger than
  the sample's that a probability overflows, the sum is not finite, and `_attention` does that block again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor


@dataclass(frozen=True)
class AttentionTile:
    """Sizes of one program's work: queries and keys at a time, warps, pipeline stages.

    narrow: logits are made from two parts of a head's columns that hold no more than needed, 40 of 64 as
    32 + 16, so a quarter fewer products of the matrix units. sampled: where `fits_sample` says so, the
    number taken off the logits comes from a sample of the keys.
    """

    queries: int
    keys: int
    warps: int
    stages: int
    narrow: bool = False
    sampled: bool = False


#: Does what `_sampled_attention` does: q, k, v, ref_k, ref_v, the output, heads, size and split of
#: `two_source_attention` → `again`, or None where it does not take them.
Sampled = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, int, int, tuple[int, int]], Tensor | None]
#: Keys of each source in the sample.
SAMPLE = 64
#: Powers of two between the sample's largest probability and 1. float16 overflows at 16 more.
HEADROOM = 4.0


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
    out_ptr, out_stride, out_batch, queries, again_ptr,
    SIZE: tl.constexpr, QA: tl.constexpr, QB: tl.constexpr, A: tl.constexpr, B: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, HEADS: tl.constexpr, TWO: tl.constexpr, ONES: tl.constexpr,
    EVEN_Q: tl.constexpr, EVEN_K: tl.constexpr, EVEN_R: tl.constexpr, AGAIN: tl.constexpr,
):  # fmt: skip
    """AGAIN: only the blocks of queries that `_sampled_attention` left."""
    if AGAIN:  # noqa: SIM102 - a constant first: without it, nothing is loaded
        if tl.load(again_ptr + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)) == 0:
            return
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


@triton.jit
def _logits(q_a, q_b, keys, stride, QA: tl.constexpr, QB: tl.constexpr):
    """Of queries in two parts, of which the second may be missing, and of the keys that begin at `keys`."""
    k_a = tl.load(keys + stride[None, :] + tl.arange(0, QA)[:, None])
    logits = tl.dot(q_a, k_a)
    if QB > 0:
        k_b = tl.load(keys + stride[None, :] + (QA + tl.arange(0, QB))[:, None])
        logits = tl.dot(q_b, k_b, logits)
    return logits


@triton.jit
def _over_keys_shifted(
    out, q_a, q_b, keys, values, stride, length,
    KEYS: tl.constexpr, QA: tl.constexpr, QB: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One source's keys added to the output, whose column after the head's is the sum of probabilities."""
    rows = tl.arange(0, KEYS) * stride
    v_at = values + rows[:, None] + tl.arange(0, WIDE)[None, :]
    for _ in range(0, length, KEYS):
        p = tl.exp2(_logits(q_a, q_b, keys, rows, QA, QB))
        keys += KEYS * stride
        v = tl.load(v_at)
        v_at += KEYS * stride
        out = tl.dot(p.to(v.dtype), v, out)
    return out


@triton.jit
def _sampled_attention(
    q_ptr, q_stride, q_batch, k_ptr, v_ptr, kv_stride, kv_batch, length,
    rk_ptr, rv_ptr, ref_stride, ref_batch, ref_length, share,
    out_ptr, out_stride, out_batch, again_ptr,
    SIZE: tl.constexpr, QA: tl.constexpr, QB: tl.constexpr, WIDE: tl.constexpr,
    QUERIES: tl.constexpr, KEYS: tl.constexpr, HEADS: tl.constexpr,
    SAMPLE: tl.constexpr, HEADROOM: tl.constexpr,
):  # fmt: skip
    """Both sources' keys without a running maximum. again: 1 where a block of queries needs `_attention`."""
    head = tl.program_id(1) % HEADS
    batch = (tl.program_id(1) // HEADS).to(tl.int64)
    rows = tl.program_id(0) * QUERIES + tl.arange(0, QUERIES)
    cols = tl.arange(0, WIDE)
    cols_a = tl.arange(0, QA)
    q_at = q_ptr + batch * q_batch + head * WIDE + rows[:, None] * q_stride
    q_a = tl.load(q_at + cols_a[None, :])
    q_b = q_a
    if QB > 0:
        cols_b = QA + tl.arange(0, QB)
        q_b = tl.load(q_at + cols_b[None, :])
    own = batch * kv_batch + head * WIDE
    ref = (batch // share) * ref_batch + head * WIDE
    some = tl.arange(0, SAMPLE)
    top = tl.max(_logits(q_a, q_b, k_ptr + own, some * (length // SAMPLE) * kv_stride, QA, QB), 1)
    sampled = _logits(q_a, q_b, rk_ptr + ref, some * (ref_length // SAMPLE) * ref_stride, QA, QB)
    shift = (-HEADROOM - tl.maximum(top, tl.max(sampled, 1))).to(q_a.dtype)
    q_a = tl.where((cols_a == SIZE)[None, :], shift[:, None], q_a)
    if QB > 0:
        q_b = tl.where((cols_b == SIZE)[None, :], shift[:, None], q_b)
    out = tl.zeros((QUERIES, WIDE), tl.float32)
    out = _over_keys_shifted(
        out, q_a, q_b, k_ptr + own, v_ptr + own, kv_stride, length, KEYS, QA, QB, WIDE
    )  # fmt: skip
    out = _over_keys_shifted(
        out, q_a, q_b, rk_ptr + ref, rv_ptr + ref, ref_stride, ref_length, KEYS, QA, QB, WIDE
    )  # fmt: skip
    total = tl.sum(tl.where((cols == SIZE)[None, :], out, 0.0), 1)
    left = tl.max(tl.where((total > 0.0) & (total < 1e30), 0, 1), 0)  # a NaN is left as well
    tl.store(again_ptr + tl.program_id(1) * tl.num_programs(0) + tl.program_id(0), left)
    result = (out / total[:, None]).to(out_ptr.dtype.element_ty)
    out_at = out_ptr + batch * out_batch + head * SIZE + rows[:, None] * out_stride
    tl.store(out_at + cols[None, :], result, mask=(cols < SIZE)[None, :])


def fits_sample(
    queries: int, keys: int, ref_keys: int, size: int, split: tuple[int, int], tile: AttentionTile
) -> bool:
    """Whether `_sampled_attention` takes these: whole tiles, heads in one part with a column to spare."""
    whole = queries % tile.queries == 0 and keys % tile.keys == 0 and ref_keys % tile.keys == 0
    return whole and min(keys, ref_keys) >= SAMPLE and split[1] == 0 and split[0] > size


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
    tile: AttentionTile,
    sampled: Sampled | None = None,
) -> Tensor:
    """softmax(q · [k ; ref_k]ᵀ) · [v ; ref_v] with base-2 logits, (N, queries, heads · size).

    q (N, queries, heads · P), k and v (N, keys, heads · P) with P = sum(split) columns a head, of which the
    first `size` count and the others are 0, except that column `size` of keys and values is 1 where P > size.
    ref_k, ref_v (N / share, keys, heads · P), each used by `share` consecutive items of the batch; or None.
    The scale log2(e)/√size is in q already. Rows may be strided, columns not.
    sampled: serves in place of Triton's kernel where the tile is sampled.
    """
    batch, queries, _ = q.shape
    a, b = split
    logit_a, logit_b = narrow_split(size) if tile.narrow else split
    out = torch.empty(batch, queries, heads * size, dtype=q.dtype, device=q.device)
    two = ref_k is not None
    rk, rv = (ref_k, ref_v) if ref_k is not None and ref_v is not None else (k, v)
    assert logit_a + logit_b <= a + b and k.stride() == v.stride() and rk.stride() == rv.stride()
    grid = (triton.cdiv(queries, tile.queries), batch * heads)
    sources = (
        q, q.stride(1), q.stride(0), k, v, k.stride(1), k.stride(0), k.shape[1],
        rk, rv, rk.stride(1), rk.stride(0), rk.shape[1], batch // rk.shape[0],
        out, out.stride(1), out.stride(0),
    )  # fmt: skip
    again, sampling = None, tile.sampled and two
    if sampling and sampled is not None:
        again = sampled(q, k, v, rk, rv, out, heads, size, split)
        assert again is None or again.shape == grid[::-1]
    fits = fits_sample(queries, k.shape[1], rk.shape[1], size, split, tile)
    if again is None and sampling and fits:
        again = torch.empty(grid, dtype=torch.int32, device=q.device)
        sample_a, sample_b = narrow_split(size + 1) if tile.narrow else split
        _sampled_attention[grid](
            *sources, again, SIZE=size, QA=sample_a, QB=sample_b, WIDE=a,
            QUERIES=tile.queries, KEYS=tile.keys, HEADS=heads, SAMPLE=SAMPLE, HEADROOM=HEADROOM,
            num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
    _attention[grid](
        *sources, queries, out if again is None else again,
        SIZE=size, QA=logit_a, QB=logit_b, A=a, B=b, QUERIES=tile.queries, KEYS=tile.keys,
        HEADS=heads, TWO=two, ONES=a + b > size,
        EVEN_Q=queries % tile.queries == 0, EVEN_K=k.shape[1] % tile.keys == 0,
        EVEN_R=rk.shape[1] % tile.keys == 0, AGAIN=again is not None,
        num_warps=tile.warps, num_stages=tile.stages,
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
