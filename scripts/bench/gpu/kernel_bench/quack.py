"""Matrix products by QuACK's kernels, tile by tile, beside cuBLAS: for Hopper, with `quack-kernels`.

Of these the fast path has those with a gate. The others are no faster than cuBLAS's.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from gpu_worker.fast.quack_ops import GatedProducts, ProductTile
from gpu_worker.fast.weights import Linear
from scripts.bench.gpu.kernel_bench.measure import rand, say, show

#: All that QuACK's own search tries on Hopper for products with a gate, with either pair of blocks together.
GATED_TILES: list[ProductTile] = [
    (*tile, cluster)
    for tile in [
        (256, 128, False), (256, 160, False), (256, 192, False), (128, 224, False), (128, 256, False),
        (128, 128, True), (128, 160, True), (128, 192, True), (192, 128, True),
    ]
    for cluster in ((1, 2), (2, 1))
]  # fmt: skip
PLAIN_TILES: list[ProductTile] = [
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
            lambda p=products: _gated(p, room[:, width:], x, layer),
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
            products = GatedProducts([tile])
            show(
                f"{name} {tile}",
                lambda s=source, w=matrix, o=out, p=products: p.run(p.configs[0], s, w, o),
                flop,
            )
            if n == 1:
                show(
                    f"{name} into the residual {tile}",
                    lambda s=source, w=matrix, o=out, p=products: p.run(p.configs[0], s, w, o, C=o),
                    flop,
                )


def _gated(products: GatedProducts, out: Tensor, x: Tensor, layer: Linear) -> Tensor:
    products(out, x, layer)
    return out
