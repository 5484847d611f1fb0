"""The two-source attention of `attention`, written for Hopper's asynchronous matrix units.

A block of queries stays in shared memory; tiles of keys and values come by bulk copies, several ahead. While
the multiprocessor's exponentials work on one tile of logits, its matrix units make the next tile's and add the
last one's values (the order of work of FlashAttention-3, Shah et al. 2024, arXiv 2407.08608, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.hopper import (
    fence_async_shared,
    mbarrier,
    tma,
    warpgroup_mma,
    warpgroup_mma_wait,
)
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor


@dataclass(frozen=True)
class HopperTile:
    """Queries of a program, keys at a time, warps, tiles of keys in shared memory; poly: see `_probabilities`."""

    queries: int
    keys: int
    warps: int
    stages: int
    poly: bool = False


@gluon.jit
def _probabilities(x, POLY: gl.constexpr):
    """2^x, half precision, of x ≤ 0.

    POLY: of every four, two come from the exponential unit and two, at once, from a polynomial of degree 3 on
    the multipliers (as FlashAttention-4 does): 2^x = p(x + n) / 2^n with n = round(-x), which falls out of the
    bits of 1536 - x. There x is at least -15, which gives 0.
    """
    if POLY:
        return gl.inline_asm_elementwise(
            """
            {
            .reg .b32 t, n, r, f, p, magic, least, c;
            cvt.rn.f16x2.f32 t, $3, $2;
            ex2.approx.f16x2 $0, t;
            cvt.rn.f16x2.f32 t, $5, $4;
            mov.b32 least, 0xCB80CB80;
            max.f16x2 t, t, least;
            mov.b32 magic, 0x66006600;
            sub.rn.f16x2 r, magic, t;
            sub.rn.f16x2 n, r, magic;
            add.rn.f16x2 f, t, n;
            mov.b32 p, 0x2B1B2B1B;
            mov.b32 c, 0x33B033B0;
            fma.rn.f16x2 p, p, f, c;
            mov.b32 c, 0x398C398C;
            fma.rn.f16x2 p, p, f, c;
            mov.b32 c, 0x3C003C00;
            fma.rn.f16x2 p, p, f, c;
            shl.b32 r, r, 10;
            and.b32 r, r, 0xFC00FC00;
            sub.u32 $1, p, r;
            }
            """,
            "=r,=r,r,r,r,r", [x], dtype=gl.float16, is_pure=True, pack=4,
        )  # fmt: skip
    else:
        return gl.exp2(x).to(gl.float16)


@gluon.jit
def _fetch(
    tile, own, total, batch, head, keys, refs, share, k_desc, v_desc, rk_desc, rv_desc, k_tiles, v_tiles, bars,
    KEYS: gl.constexpr, WIDE: gl.constexpr, STAGES: gl.constexpr,
):  # fmt: skip
    """Starts the copies of one tile of keys and values."""
    stage = tile % STAGES
    bar = bars.index(stage)
    if tile < total:
        mbarrier.expect(bar, 2 * KEYS * WIDE * 2)
        if tile < own:
            row = batch * keys + tile * KEYS
            tma.async_copy_global_to_shared(k_desc, [row, head * WIDE], bar, k_tiles.index(stage))
            tma.async_copy_global_to_shared(v_desc, [row, head * WIDE], bar, v_tiles.index(stage))
        else:
            row = (batch // share) * refs + (tile - own) * KEYS
            tma.async_copy_global_to_shared(rk_desc, [row, head * WIDE], bar, k_tiles.index(stage))
            tma.async_copy_global_to_shared(rv_desc, [row, head * WIDE], bar, v_tiles.index(stage))


@gluon.jit
def _attention_hopper(
    q_desc, k_desc, v_desc, rk_desc, rv_desc, out_ptr, queries, keys, refs, share, out_row,
    SIZE: gl.constexpr, WIDE: gl.constexpr, QUERIES: gl.constexpr, KEYS: gl.constexpr,
    HEADS: gl.constexpr, STAGES: gl.constexpr, POLY: gl.constexpr, num_warps: gl.constexpr,
):  # fmt: skip
    s_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, KEYS, 16])
    o_layout: gl.constexpr = gl.NVMMADistributedLayout([3, 0], [num_warps, 1], [16, WIDE, 16])
    head = gl.program_id(1) % HEADS
    batch = gl.program_id(1) // HEADS
    first = gl.program_id(0) * QUERIES

    q_tile = gl.allocate_shared_memory(gl.float16, [QUERIES, WIDE], q_desc.layout)
    k_tiles = gl.allocate_shared_memory(gl.float16, [STAGES, KEYS, WIDE], k_desc.layout)
    v_tiles = gl.allocate_shared_memory(gl.float16, [STAGES, KEYS, WIDE], v_desc.layout)
    bars = gl.allocate_shared_memory(gl.int64, [STAGES + 1, 1], mbarrier.MBarrierLayout())
    for each in gl.static_range(STAGES + 1):
        mbarrier.init(bars.index(each), count=1)
    fence_async_shared()
    gl.thread_barrier()

    mbarrier.expect(bars.index(STAGES), QUERIES * WIDE * 2)
    tma.async_copy_global_to_shared(
        q_desc, [batch * queries + first, head * WIDE], bars.index(STAGES), q_tile
    )
    own = keys // KEYS
    total = own + refs // KEYS
    for early in gl.static_range(STAGES):
        _fetch(
            early, own, total, batch, head, keys, refs, share, k_desc, v_desc, rk_desc, rv_desc, k_tiles, v_tiles,
            bars, KEYS, WIDE, STAGES,
        )  # fmt: skip

    none = gl.full([QUERIES, KEYS], 0.0, gl.float32, s_layout)
    made = gl.full([QUERIES, WIDE], 0.0, gl.float32, o_layout)
    mbarrier.wait(bars.index(STAGES), 0)
    mbarrier.wait(bars.index(0), 0)
    logits = warpgroup_mma(q_tile, k_tiles.index(0).permute((1, 0)), none, use_acc=False)
    top = gl.max(logits, 1)
    p = _probabilities(logits - gl.expand_dims(top, 1), POLY)
    for tile in range(total - 1):
        after = tile + 1
        stage = after % STAGES
        mbarrier.wait(bars.index(stage), (after // STAGES) & 1)
        coming = warpgroup_mma(
            q_tile, k_tiles.index(stage).permute((1, 0)), none, use_acc=False, is_async=True
        )
        operand = gl.convert_layout(p, gl.DotOperandLayout(0, o_layout, 2))
        out = warpgroup_mma(operand, v_tiles.index(tile % STAGES), made, is_async=True)
        logits = warpgroup_mma_wait(1, deps=[coming])
        new_top = gl.maximum(top, gl.max(logits, 1))
        shrink = gl.exp2(top - new_top)
        p = _probabilities(logits - gl.expand_dims(new_top, 1), POLY)
        top = new_top
        made = warpgroup_mma_wait(0, deps=[out])
        gl.thread_barrier()  # all warps are done with this tile, whose place the next copies take
        _fetch(
            tile + STAGES, own, total, batch, head, keys, refs, share, k_desc, v_desc, rk_desc, rv_desc,
            k_tiles, v_tiles, bars, KEYS, WIDE, STAGES,
        )  # fmt: skip
        made = made * gl.expand_dims(gl.convert_layout(shrink, gl.SliceLayout(1, o_layout)), 1)
    operand = gl.convert_layout(p, gl.DotOperandLayout(0, o_layout, 2))
    made = warpgroup_mma(operand, v_tiles.index((total - 1) % STAGES), made)

    columns = gl.arange(0, WIDE, gl.SliceLayout(0, o_layout))
    rows = first + gl.arange(0, QUERIES, gl.SliceLayout(1, o_layout))
    count = gl.sum(gl.where(gl.expand_dims(columns == SIZE, 0), made, 0.0), 1)
    result = (made / gl.expand_dims(count, 1)).to(gl.float16)
    at = (batch * queries + rows) * out_row + head * SIZE
    at = gl.expand_dims(at, 1) + gl.expand_dims(columns, 0)
    mask = gl.expand_dims(rows < queries, 1) & gl.expand_dims(columns < SIZE, 0)
    gl.store(out_ptr + at, result, mask=mask)


def hopper_attention(
    q: Tensor, k: Tensor, v: Tensor, ref_k: Tensor, ref_v: Tensor, *, heads: int, size: int, wide: int,
    tile: HopperTile,
) -> Tensor:  # fmt: skip
    """As `attention.two_source_attention`, for float16 on Hopper: `serves` says for which shapes."""
    batch, queries, _ = q.shape
    out = torch.empty(batch, queries, heads * size, dtype=q.dtype, device=q.device)
    layout = gl.NVMMASharedLayout.get_default_for([tile.keys, wide], gl.float16)
    q_layout = gl.NVMMASharedLayout.get_default_for([tile.queries, wide], gl.float16)

    def described(x: Tensor, block: int, layout: gl.NVMMASharedLayout) -> TensorDescriptor:
        shape = [x.shape[0] * x.shape[1], x.shape[2]]
        return TensorDescriptor(x, shape, [x.stride(1), 1], [block, wide], layout)

    _attention_hopper[(-(-queries // tile.queries), batch * heads)](
        described(q, tile.queries, q_layout), *(described(x, tile.keys, layout) for x in (k, v, ref_k, ref_v)),
        out, queries, k.shape[1], ref_k.shape[1], batch // ref_k.shape[0], out.stride(1),
        SIZE=size, WIDE=wide, QUERIES=tile.queries, KEYS=tile.keys, HEADS=heads, STAGES=tile.stages,
        POLY=tile.poly, num_warps=tile.warps,
    )  # fmt: skip
    return out


def serves(q: Tensor, k: Tensor, ref_k: Tensor, size: int, wide: int, tile: HopperTile) -> bool:
    """Whether `hopper_attention` takes these: float16, a spare column, whole tiles, rows one after another."""
    whole = q.shape[1] % 64 == 0 and k.shape[1] % tile.keys == 0 and ref_k.shape[1] % tile.keys == 0
    dense = all(x.shape[0] == 1 or x.stride(0) == x.shape[1] * x.stride(1) for x in (q, k, ref_k))
    capable = q.is_cuda and torch.cuda.get_device_capability(q.device)[0] == 9
    return q.dtype == torch.float16 and wide > size and wide in (16, 32, 64) and whole and dense and capable
