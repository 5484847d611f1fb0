"""GEGLU within the matrix product before it by `gated_product.cu`, on Hopper's matrix units."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gpu_worker.fast.kernels.cuda_source import CudaKernel, compile_cuda, nvrtc, tensor_map

SOURCE = Path(__file__).with_name("gated_product.cu")
#: Threads of a block: two groups of four warps multiply, one group loads.
THREADS = 384
#: Lanes that hold a row's sums.
LANES = 4
#: Bytes of a row's part that is loaded at a time.
CHUNK = 128
#: Rows and columns of a tile where a block keeps its columns' weights, and where it does not.
RESIDENT, STREAMED = (64, 256), (128, 192)
#: Inner widths are multiples of this.
WHOLE = 128
#: Bytes of shared memory for stages and weights: a block's most, less barriers and 1,024 at the beginning.
ROOM = 232_448 - 2 * 1024
#: Stages of a block that keeps its weights, and the most of any.
LEAST_STAGES, MOST_STAGES = 4, 12
FLOAT8 = torch.float8_e4m3fn


@dataclass(frozen=True)
class Shape:
    """Of one compiled kernel: numbers of a row of x, outputs of a row, types."""

    depth: int
    inner: int
    dtype: torch.dtype  # of biases, and of x where that is not in float8
    float8: bool
    out8: bool

    @property
    def chunks(self) -> int:
        return -(-self.depth * (1 if self.float8 else 2) // CHUNK)

    @property
    def resident(self) -> bool:
        """Whether a block keeps all weights of its columns, which have room beside a few stages."""
        rows, columns = RESIDENT
        return CHUNK * (self.chunks * columns + LEAST_STAGES * rows) <= ROOM

    @property
    def tile(self) -> tuple[int, int]:
        """Rows and columns."""
        return RESIDENT if self.resident else STREAMED

    @property
    def cluster(self) -> int:
        """Blocks that share loads of weights."""
        return 1 if self.resident else 2

    @property
    def stages(self) -> int:
        return min((ROOM - self._kept) // self._stage, MOST_STAGES)

    @property
    def shared(self) -> int:
        """Bytes of dynamic shared memory."""
        return self._kept + self.stages * self._stage + 1024

    @property
    def _kept(self) -> int:
        return self.resident * self.chunks * CHUNK * self.tile[1]

    @property
    def _stage(self) -> int:
        rows, columns = self.tile
        return CHUNK * (rows + (not self.resident) * columns)

    @property
    def each(self) -> int:
        """Outputs of a lane that lie side by side."""
        return 16 if self.resident and self.out8 else 8

    @property
    def weights_box(self) -> tuple[int, ...]:
        """The part of `in_lanes` that one load takes: all of a tile, or half of a group of outputs."""
        columns = CHUNK // (1 if self.float8 else 2)
        groups = self.tile[1] // 2 // (LANES * self.each)
        return columns, 2, LANES, *((self.each, groups) if self.resident else (self.each // 2, 1))

    def constants(self) -> dict[str, int]:
        return {
            "DEPTH": self.depth, "INNER": self.inner, "FLOAT8": self.float8, "OUT8": self.out8,
            "RESIDENT": self.resident, "CLUSTER": self.cluster, "STAGES": self.stages,
            "BF16": self.dtype == torch.bfloat16,
        }  # fmt: skip

    def grid(self, rows: int, multiprocessors: int) -> int:
        """Blocks: each of them takes tiles until none is left."""
        tall, wide = self.tile
        across, down = -(-2 * self.inner // wide), -(-rows // (tall * self.cluster))
        if self.resident:
            return across * max(min(multiprocessors // across, down), 1)
        return min(multiprocessors // self.cluster, across * down) * self.cluster


class CudaGated:
    """The kernel for each shape, compiled when it first comes.

    Raises:
        CudaError: there is no compiler. When called: it refuses, or the driver does.
    """

    def __init__(self) -> None:
        nvrtc()
        self._kernels: dict[Shape, CudaKernel] = {}

    def fits(self, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
        """Whether it takes these arguments of a call."""
        if bias is None or bias.element_size() != 2 or not weight.is_contiguous():
            return False
        whole = len(weight) // 2 % WHOLE == 0 and x.shape[1] * x.element_size() % 32 == 0
        steps = [t.stride(0) * t.element_size() for t in (out, x)]
        return whole and all(at % 16 == 0 for at in (*steps, *(t.data_ptr() for t in (out, x, weight, bias))))

    def __call__(
        self, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor, scale: float = 1.0, out_scale: float = 1.0
    ) -> None:
        """out (rows, inner) = value · gelu(gate) of x (rows, depth) · weightᵀ · scale + bias.

        weight (2·inner, depth) and bias (2·inner,) of 16 bits have the values first. x and weight are in 16
        bits or in float8. Rows of x and out may be strided. An output in float8 is multiplied by `out_scale`.
        """
        shape = Shape(x.shape[1], len(weight) // 2, bias.dtype, x.dtype == FLOAT8, out.dtype == FLOAT8)
        multiprocessors = torch.cuda.get_device_properties(x.device).multi_processor_count
        box = shape.weights_box
        self._kernel(shape).launch(
            (shape.grid(len(x), multiprocessors), 1), THREADS,
            [tensor_map(x, (box[0], shape.tile[0])), tensor_map(in_lanes(weight, shape.each), box), bias,
             out, out.stride(0) * out.element_size(), len(x), scale, out_scale],
        )  # fmt: skip

    def _kernel(self, shape: Shape) -> CudaKernel:
        if shape not in self._kernels:
            binary = compile_cuda(SOURCE, "sm_90a", shape.constants())
            self._kernels[shape] = CudaKernel(binary, "gated_product", shape.shared)
        return self._kernels[shape]


def in_lanes(weight: Tensor, each: int) -> Tensor:
    """weight (2·inner, depth), values first → (groups of outputs, each, LANES, 2, depth), a view.

    Its rows are in the order in which the matrix units give sums to lanes, two at a time. So a lane has both
    the values and the gates of `each` outputs that lie side by side.
    """
    return weight.view(2, -1, LANES, each, weight.shape[1]).permute(1, 3, 2, 0, 4)
