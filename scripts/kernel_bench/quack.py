"""The linear layers by QuACK's kernels, tile by tile, beside cuBLAS: for Hopper, with `quack-kernels`."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from gpu_worker.fast.gated import GatedProducts, GatedTile
from gpu_worker.fast.weights import Linear
from scripts.kernel_bench.measure import rand, say, show

#: All that QuACK's own search tries on Hopper for products with a gate, with either pair of blocks together.
GATED_TILES: list[GatedTile] = [
    (*tile, cluster)
    for tile in [
        (256, 128, False), (256, 160, False), (256, 192, False), (128, 224, False), (128, 256, False),
        (128, 128, True), (128, 160, True), (128, 192, True), (192, 128, True),
    ]
    for cluster in ((1, 2), (2, 1))
]  # fmt: skip
PLAIN_TILES: list[GatedTile] = [
    (128, 128, True, (2, 1)), (128, 160, True, (2, 1)), (128, 192, True, (2, 1)),
    (128, 192, True, (1, 2)), (128, 256, False, (2, 1)), (256, 128, False, (2, 1)),
    (256, 160, False, (2, 1)), (256, 192, False, (1, 2)),
]  # fmt: skip


def bench_quack(rows: int, width: int) -> None:
    say(f"QuACK: {rows} rows, width {width}")
    x, weight, bias = rand(rows, width), rand(8 * width, width) / width**0.5, rand(8 * width) * 0.1
    value, gate = F.linear(x[:64].float(), weight.float(), bias.float()).chunk(2, 1)
    room = rand(rows, 5 * width)
    flop = 2.0 * rows * 8 * width * width
    layer = Linear(weight, bias)
    for tile in GATED_TILES:
        products = GatedProducts([tile])
        show(
            f"GEGLU into a room {tile}",
            lambda p=products: p(x, layer, room[:, width:]),
            flop,
            wanted=value * F.gelu(gate),
            part=lambda made: made[:64],
        )
    for name, n, k in (("proj", 1, 1), ("qkv", 3, 1), ("FF out", 1, 4)):
        source, matrix = rand(rows, k * width), rand(n * width, k * width) / (k * width) ** 0.5
        out = rand(rows, n * width)
        flop = 2.0 * rows * n * k * width * width
        show(f"{name}: cuBLAS", lambda s=source, w=matrix: F.linear(s, w), flop)
        if n == 1:
            show(
                f"{name}: cuBLAS into the residual",
                lambda s=source, w=matrix, o=out: o.addmm_(s, w.t()),
                flop,
            )
        for tile in PLAIN_TILES:
            show(f"{name} {tile}", lambda s=source, w=matrix, o=out, t=tile: _plain(s, w, None, o, t), flop)
            if n == 1:
                show(
                    f"{name} into the residual {tile}",
                    lambda s=source, w=matrix, o=out, t=tile: _plain(s, w, o, o, t),
                    flop,
                )


def _plain(x: Tensor, weight: Tensor, add: Tensor | None, out: Tensor, tile: GatedTile) -> Tensor:
    """x · weightᵀ [+ add] into `out`: a product with an activation that is none, since those take a tile."""
    from quack.gemm_config import GemmConfig
    from quack.gemm_interface import gemm_act

    rows, columns, turns, (cluster_m, cluster_n) = tile
    config: Any = GemmConfig(
        tile_m=rows,
        tile_n=columns,
        pingpong=turns,
        cluster_m=cluster_m,
        cluster_n=cluster_n,
        device_capacity=9,
    )
    gemm_act(x, weight.t(), C=add, postact_out=out, store_preact=False, config=config)
    return out
