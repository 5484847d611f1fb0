"""The fast network's matrix products by QuACK's kernels (github.com/Dao-AILab/quack) where those are faster.

Each shape of product is timed once, by cuBLAS and by a few of QuACK's tiles, and what was fastest stays.
QuACK also multiplies values by their gates while the next tile's product runs, so that GEGLU's wide rows,
twice as wide as what is left of them, never go to memory. Its GELU is the one with tanh, within 5e-4 of the
one with erf that models are trained with: less than float16's rounding of values around 1.

QuACK is optional (`quack-kernels` of PyPI) and for compute capability 9.0 and more. Its kernels are compiled
when first used, about 2 s each, and kept in its own cache (QUACK_CACHE_DIR).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from gpu_worker.fast.triton_ops import TritonOps
from gpu_worker.fast.weights import Linear

logger = logging.getLogger(__name__)

#: Rows and columns of a tile, whether two of them take turns on a multiprocessor, blocks that share loads.
ProductTile = tuple[int, int, bool, tuple[int, int]]
TILES: tuple[ProductTile, ...] = (
    (128, 192, True, (2, 1)),
    (128, 128, True, (2, 1)),
    (128, 256, False, (2, 1)),
    (256, 192, False, (1, 2)),
)
RUNS = 5  # timed of each candidate


class QuackOps(TritonOps):
    """TritonOps whose matrix products may be QuACK's. Arguments as there, and:

    gate_only: GEGLU's alone. tiles: to choose from. Raises ImportError where QuACK is absent or does not
    load. A shape's first product is timed: not while a CUDA graph is recorded.
    """

    def __init__(
        self, *, gate_only: bool = False, tiles: Sequence[ProductTile] = TILES, **options: Any
    ) -> None:
        super().__init__(**options)
        self._products = Products(tiles)
        self._plain = not gate_only

    def linear(self, x: Tensor, layer: Linear) -> Tensor:
        if layer.low is not None or not self._plain:
            return super().linear(x, layer)
        out = x.new_empty(len(x), len(layer.weight))
        self._products.linear(out, x, layer.weight, layer.bias)
        return out

    def project(self, out: Tensor, x: Tensor, weight: Tensor) -> None:
        if self._plain:
            self._products.linear(out, x, weight)
        else:
            super().project(out, x, weight)

    def add_linear(self, into: Tensor, x: Tensor, layer: Linear) -> None:
        if layer.low is not None or not self._plain:
            super().add_linear(into, x, layer)
        else:
            self._products.add(into, x, layer.weight)

    def geglu(self, x: Tensor, layer: Linear) -> Tensor:
        out = x.new_empty(len(x), len(layer.weight) // 2)
        self.geglu_into(out, x, layer)
        return out

    def geglu_into(self, out: Tensor, x: Tensor, layer: Linear) -> None:
        self._products.gated(out, x, layer)


class Products:
    """Matrix products of rows, each by the candidate that is fastest for its shape.

    x (rows, in), weights (…, in); results go into `out`, whose rows, as x's, may be strided.
    """

    def __init__(self, tiles: Sequence[ProductTile]) -> None:
        from quack.gemm_config import GemmConfig
        from quack.gemm_interface import gemm_act

        self._product: Any = gemm_act
        self.configs = [
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
        self._chosen: dict[tuple[object, ...], Any] = {}
        self._paired: dict[Linear, tuple[Tensor, Tensor]] = {}

    def linear(self, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> None:
        """out (rows, n) = x · weightᵀ [+ bias], weight (n, in)."""

        def run(config: object) -> None:
            if config is not None:
                self.run(config, x, weight, out, bias=bias)
            elif bias is None:
                torch.mm(x, weight.t(), out=out)
            else:
                torch.addmm(bias, x, weight.t(), out=out)

        run(self._best(("linear", bias is None, *_shape(x, weight, out)), [None, *self.configs], run))

    def add(self, into: Tensor, x: Tensor, weight: Tensor) -> None:
        """into (rows, n) += x · weightᵀ."""

        def run(config: object, into: Tensor = into) -> None:
            if config is None:
                into.addmm_(x, weight.t())
            else:
                self.run(config, x, weight, into, C=into)

        key = ("add", *_shape(x, weight, into))
        if key not in self._chosen:  # timed beside it: each run adds once more
            beside = torch.empty_strided(into.shape, into.stride(), dtype=into.dtype, device=into.device)
            beside.zero_()
            self._best(key, [None, *self.configs], lambda config: run(config, beside))
        run(self._chosen[key])

    def gated(self, out: Tensor, x: Tensor, layer: Linear) -> None:
        """out (rows, n) = geglu of x's product with a layer as `TorchOps.geglu` takes it, values' weights
        before gates'."""
        if layer not in self._paired:
            assert layer.bias is not None
            self._paired[layer] = paired(layer.weight), paired(layer.bias).float()
        weight, bias = self._paired[layer]

        def run(config: object) -> None:
            self.run(config, x, weight, out, bias=bias, activation="geglu")

        run(self._best(("gated", *_shape(x, weight, out)), self.configs, run))

    def run(self, config: object, x: Tensor, weight: Tensor, out: Tensor, **more: Any) -> Tensor:
        """A product by one of `configs`, with what else `gemm_act` takes; gives `out`."""
        self._product(x, weight.t(), postact_out=out, store_preact=False, config=config, **more)
        return out

    def _best(self, key: tuple[object, ...], among: Sequence[Any], run: Callable[[Any], None]) -> Any:
        """The candidate with which `run` takes least time; found once for each key."""
        if key not in self._chosen:
            times = [_milliseconds(lambda candidate=candidate: run(candidate)) for candidate in among]  # type: ignore[misc]
            best = min(range(len(times)), key=times.__getitem__)
            self._chosen[key] = among[best]
            logger.debug("%s: %s, ms %s", key, among[best], [f"{time:.3f}" for time in times])
        return self._chosen[key]


def paired(x: Tensor) -> Tensor:
    """Rows of values, then as many of gates → gate, value, gate, value …, as the kernels want them."""
    value, gate = x.chunk(2)
    return torch.stack([gate, value], 1).flatten(0, 1)


def _shape(x: Tensor, weight: Tensor, out: Tensor) -> tuple[int, ...]:
    return (len(x), *weight.shape, x.stride(0), out.stride(0))


def _milliseconds(run: Callable[[], None]) -> float:
    """Of one run, after one that compiles."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    run()
    begin.record()
    for _ in range(RUNS):
        run()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / RUNS
