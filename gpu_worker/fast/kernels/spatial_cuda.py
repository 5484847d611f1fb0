"""Spatial attention with a sampled maximum by `spatial_attention.cu`, on Hopper's matrix units."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gpu_worker.fast.kernels.cuda_source import CudaKernel, TensorMap, compile_cuda, nvrtc, tensor_map

SOURCE = Path(__file__).with_name("spatial_attention.cu")
#: Groups of four warps in a block, keys of a stage, stages.
GROUPS, KEYS, STAGES = 2, 64, 8
#: Queries of a group, which share one place of `again`, and of a block; threads of a block, one group loads.
BLOCK, QUERIES, THREADS = 128, 128 * GROUPS, 128 * (GROUPS + 1)
#: Columns of the blocks in which heads without spare columns are loaded.
COLUMNS = 16


@dataclass(frozen=True)
class HeadShape:
    """How heads of `size` columns are stored and loaded.

    split: the columns that they are stored in. Where there are some to spare, they are loaded whole and
    queries stay in registers; elsewhere in blocks of COLUMNS, and queries in shared memory.
    """

    size: int
    split: tuple[int, int]

    @property
    def wide(self) -> int:
        return sum(self.split)

    @property
    def source(self) -> str:
        return f"heads_{self.size}.cu"

    @property
    def shared(self) -> int:
        """Bytes of shared memory, with those that may be lost where it begins."""
        rows = STAGES * 2 * KEYS + (QUERIES if self.wide == self.size else 0)
        return rows * 2 * self.wide + 1024

    def map_of(self, x: Tensor) -> TensorMap:
        """For loads of KEYS rows of a head of x (N, rows, columns of all heads)."""
        if self.wide > self.size:
            return tensor_map(x, (self.wide, KEYS, 1))
        return tensor_map(
            x.unflatten(2, (-1, COLUMNS)).transpose(1, 2), (COLUMNS, KEYS, self.size // COLUMNS, 1)
        )


#: The heads that there are kernels for, by size.
SHAPES = {shape.size: shape for shape in (HeadShape(40, (64, 0)), HeadShape(80, (64, 16)))}


class CudaSpatial:
    """The kernel for each count of heads, compiled when it first comes.

    Args:
        headroom: powers of two between the sample's largest probability and 1.

    Raises:
        CudaError: there is no compiler. When called: it refuses, or the driver does.
    """

    #: Of the heads that it takes.
    sizes: Collection[int] = tuple(SHAPES)

    def __init__(self, headroom: int) -> None:
        nvrtc()
        self._headroom = headroom
        self._kernels: dict[tuple[int, int, torch.dtype], CudaKernel] = {}

    def fits(self, queries: int, keys: int, ref_keys: int, size: int, split: tuple[int, int]) -> bool:
        """Whether it takes so many of each, and heads of this size, stored so."""
        whole = queries % QUERIES == 0 and keys % KEYS == 0 and ref_keys % KEYS == 0
        return whole and min(keys, ref_keys) > 0 and size in self.sizes and split == SHAPES[size].split

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, ref_k: Tensor, ref_v: Tensor, out: Tensor, heads: int
    ) -> Tensor:
        """Writes the output of `attention.two_source_attention`, whose arguments these are.

        Returns:
            int32 (N · heads, queries / BLOCK), 1: a block to be made anew, not finite.
        """
        batch, queries, _ = q.shape
        again = self.blocks(q, heads)
        shape = SHAPES[out.shape[2] // heads]
        maps = [shape.map_of(x) for x in (k, v, sample(k), ref_k, ref_v, sample(ref_k))]
        self._kernel(heads, shape, q.dtype).launch(
            (queries // QUERIES, batch * heads), THREADS,
            [q, q.stride(1), q.stride(0), k.shape[1], ref_k.shape[1], batch // ref_k.shape[0], *maps,
             out, out.stride(1), out.stride(0), again],
        )  # fmt: skip
        return again

    @staticmethod
    def blocks(q: Tensor, heads: int) -> Tensor:
        """Room for `again`."""
        return torch.empty(len(q) * heads, q.shape[1] // BLOCK, dtype=torch.int32, device=q.device)

    def _kernel(self, heads: int, shape: HeadShape, dtype: torch.dtype) -> CudaKernel:
        key = heads, shape.size, dtype
        if key not in self._kernels:
            constants = {
                "SIZE": shape.size, "WIDE": shape.wide, "HEADS": heads, "HEADROOM": self._headroom,
                "GROUPS": GROUPS, "QUERIES": QUERIES, "KEYS": KEYS, "STAGES": STAGES,
                "BF16": int(dtype == torch.bfloat16),
            }  # fmt: skip
            binary = compile_cuda(SOURCE, "sm_90a", constants, [shape.source])
            self._kernels[key] = CudaKernel(binary, "spatial", shape.shared)
        return self._kernels[key]


def sample(keys: Tensor) -> Tensor:
    """KEYS of them (N, keys, columns), evenly spaced."""
    return keys[:, :: keys.shape[1] // KEYS][:, :KEYS]
