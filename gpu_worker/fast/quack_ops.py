"""GEGLU's gate within the matrix product before it, by QuACK's kernels (github.com/Dao-AILab/quack).

Values are multiplied by their gates while the next tile's product runs, so that GEGLU's wide rows never go
to memory: 5 % of a clip on an H200. Its GELU is the one with tanh,
within 5e-4 of the one with erf that models are trained with: less than float16's rounding of values around 1.

QuACK is optional (`quack-kernels` of PyPI, the extra `hopper`). Its tiles here were chosen for compute
capability 9.0. Its kernels are compiled when first used, 2 to 3 s each, and kept in its own cache
(QUACK_CACHE_DIR). Its other products were no faster than cuBLAS's (docs/lab/gpu-denoiser.md).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from gpu_worker.fast.cuda_kernels import CudaKernels
from gpu_worker.fast.triton_ops import TritonOps
from gpu_worker.fast.weights import Linear
from protocol.process.logs import first_line

logger = logging.getLogger(__name__)

#: Rows and columns of a tile, whether two of them take turns on a multiprocessor, blocks that share loads.
ProductTile = tuple[int, int, bool, tuple[int, int]]
TILES: tuple[ProductTile, ...] = (
    (128, 192, True, (2, 1)),
    (128, 128, True, (2, 1)),
    (128, 256, False, (2, 1)),
)
RUNS = 5  # timed of each tile


class QuackOps(TritonOps):
    """TritonOps with GEGLU by QuACK.

    Where one of its kernels fails, the log says so and TritonOps's own kernel serves from then on. A shape's
    first product is timed, so it must not come while a CUDA graph is recorded.

    Raises:
        ImportError: QuACK is not installed.
    """

    def __init__(self, cuda: CudaKernels | None = None, tiles: Sequence[ProductTile] = TILES) -> None:
        super().__init__(cuda)
        self._products: GatedProducts | None = GatedProducts(tiles)

    def geglu(self, x: Tensor, layer: Linear) -> Tensor:
        if self._products is None:
            return super().geglu(x, layer)
        out = x.new_empty(len(x), len(layer.weight) // 2)
        self.geglu_into(out, x, layer)
        return out

    def geglu_into(self, out: Tensor, x: Tensor, layer: Linear) -> None:
        if self._products is not None:
            try:
                self._products(out, x, layer)
                return
            except Exception as error:  # a compiler's and a driver's, of any kind
                logger.warning("GEGLU's gate takes a pass of its own, QuACK fails: %s", first_line(error))
                self._products = None
        super().geglu_into(out, x, layer)


class GatedProducts:
    """GEGLU of rows, by the tile that is fastest for their shape."""

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
        self._chosen: dict[tuple[int, ...], Any] = {}
        self._paired: dict[Linear, tuple[Tensor, Tensor]] = {}

    def __call__(self, out: Tensor, x: Tensor, layer: Linear) -> None:
        """out (rows, n) = geglu of x's (rows, in) product with a layer as `TorchOps.geglu` takes it, values'
        weights before gates'. Rows of both may be strided."""
        if layer not in self._paired:
            assert layer.bias is not None
            self._paired[layer] = paired(layer.weight), paired(layer.bias).float()
        weight, bias = self._paired[layer]

        def run(config: object) -> None:
            self.run(config, x, weight, out, bias=bias, activation="geglu")

        run(self._best((len(x), *weight.shape, x.stride(0), out.stride(0)), run))

    def run(self, config: object, x: Tensor, weight: Tensor, out: Tensor, **more: Any) -> None:
        """out = x · weightᵀ by one of `configs`. more: further arguments of `gemm_act`."""
        self._product(x, weight.t(), postact_out=out, store_preact=False, config=config, **more)

    def _best(self, shape: tuple[int, ...], run: Callable[[Any], None]) -> Any:
        """The configuration with which `run` takes least time, found once for each shape."""
        if shape not in self._chosen:
            times = [_milliseconds(partial(run, config)) for config in self.configs]
            best = min(range(len(times)), key=times.__getitem__)
            self._chosen[shape] = self.configs[best]
            shown = [f"{time:.3f}" for time in times]
            logger.debug("%s: %s, ms %s", shape, self._chosen[shape], shown)
        return self._chosen[shape]


def paired(x: Tensor) -> Tensor:
    """Rows of values, then as many of gates → gate, value, gate, value …, as the kernels want them."""
    value, gate = x.chunk(2)
    return torch.stack([gate, value], 1).flatten(0, 1)


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
