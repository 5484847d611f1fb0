"""GEGLU within a matrix product, by QuACK's kernels for Hopper and later (github.com/Dao-AILab/quack).

The product's last step multiplies values by their gates while the next tile's product runs, so that the wide
rows between the two, twice as wide as what is left of them, never go to memory. The gate's GELU is the one
with tanh, which is within 5e-4 of the one with erf that the model was trained with: less than float16's
rounding of values around 1.

QuACK is optional (`quack-kernels` of PyPI); its kernels are compiled when first used, 2 s each, and kept in
its own cache (QUACK_CACHE_DIR).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gpu_worker.fast.weights import Linear

logger = logging.getLogger(__name__)

#: Rows and columns of a tile, whether two of them take turns on a multiprocessor, blocks that share loads.
GatedTile = tuple[int, int, bool, tuple[int, int]]
TILES: tuple[GatedTile, ...] = (
    (128, 192, True, (2, 1)),
    (128, 128, True, (2, 1)),
    (128, 256, False, (2, 1)),
    (256, 192, False, (1, 2)),
)
RUNS = 5  # timed of each tile


class GatedProducts:
    """geglu(x · weightᵀ + bias) in one kernel; which tile is fastest is found once for each shape.

    tiles: to choose from. Raises ImportError where QuACK is absent or does not load.
    """

    def __init__(self, tiles: Sequence[GatedTile] = TILES) -> None:
        from quack.gemm_config import GemmConfig
        from quack.gemm_interface import gemm_gated

        self._product: Any = gemm_gated
        self._configs = [
            GemmConfig(
                tile_m=rows,
                tile_n=columns,
                pingpong=turns,
                cluster_m=cluster[0],
                cluster_n=cluster[1],
                device_capacity=torch.cuda.get_device_capability()[0],
            )
            for rows, columns, turns, cluster in tiles
        ]
        self._chosen: dict[tuple[int, ...], Any] = {}
        self._weights: dict[Linear, tuple[Tensor, Tensor]] = {}

    def __call__(self, x: Tensor, layer: Linear, out: Tensor | None = None) -> Tensor:
        """x (rows, in) → (rows, out / 2), into `out` where given, whose rows may be strided.

        layer: as `TorchOps.geglu` takes it, values' weights before gates'. The first call of a shape
        compiles and times: not while a CUDA graph is recorded.
        """
        weight, bias = self._paired(layer)
        if out is None:
            out = x.new_empty(len(x), len(weight) // 2)
        key = (len(x), *weight.shape, out.stride(0))
        if key not in self._chosen:
            self._chosen[key] = self._fastest(x, weight, bias, out)
        self._run(self._chosen[key], x, weight, bias, out)
        return out

    def _run(self, config: object, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> None:
        self._product(
            x, weight.t(), bias=bias, activation="geglu", postact_out=out, store_preact=False, config=config
        )

    def _paired(self, layer: Linear) -> tuple[Tensor, Tensor]:
        if layer not in self._weights:
            assert layer.bias is not None
            self._weights[layer] = paired(layer.weight), paired(layer.bias).float()
        return self._weights[layer]

    def _fastest(self, x: Tensor, weight: Tensor, bias: Tensor, out: Tensor) -> Any:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        times = []
        for config in self._configs:
            self._run(config, x, weight, bias, out)
            begin.record()
            for _ in range(RUNS):
                self._run(config, x, weight, bias, out)
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / RUNS)
        best = min(range(len(times)), key=times.__getitem__)
        logger.debug("GEGLU of %s by %s: %.3f ms", tuple(x.shape), self._configs[best], times[best])
        return self._configs[best]


def paired(x: Tensor) -> Tensor:
    """Rows of values, then as many of gates → gate, value, gate, value …, as the kernels want them."""
    value, gate = x.chunk(2)
    return torch.stack([gate, value], 1).flatten(0, 1)
