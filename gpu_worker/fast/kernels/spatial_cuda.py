"""Spatial attention with a sampled maximum by `spatial_attention.cu`, on Hopper's matrix units."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from gpu_worker.fast.kernels.cuda_source import CudaKernel, compile_cuda, nvrtc, tensor_map

SOURCE = Path(__file__).with_name("spatial_attention.cu")
#: Groups of four warps in a block, keys of a stage, stages.
GROUPS, KEYS, STAGES = 2, 64, 8
#: Queries of a group, which share one place of `again`, and of a block; threads of a block, one group loads.
BLOCK, QUERIES, THREADS = 128, 128 * GROUPS, 128 * (GROUPS + 1)
#: Columns of a head, and those it is stored with.
SIZE, WIDE = 40, 64
#: Bytes of the stages in shared memory, and those that may be lost where they begin.
SHARED = STAGES * 2 * KEYS * 2 * WIDE + 1024
#: Columns, keys and items of the batch of one load.
BOX = WIDE, KEYS, 1


class CudaSpatial:
    """The kernel for each count of heads, compiled when it first comes.

    Args:
        headroom: powers of two between the sample's largest probability and 1.

    Raises:
        CudaError: there is no compiler. When called: it refuses, or the driver does.
    """

    def __init__(self, headroom: int) -> None:
        nvrtc()
        self._headroom = headroom
        self._kernels: dict[tuple[int, torch.dtype], CudaKernel] = {}

    def fits(self, queries: int, keys: int, ref_keys: int, size: int, split: tuple[int, int]) -> bool:
        """Whether it takes so many of each, and heads of this size, stored so."""
        whole = queries % QUERIES == 0 and keys % KEYS == 0 and ref_keys % KEYS == 0
        return whole and min(keys, ref_keys) > 0 and size == SIZE and split == (WIDE, 0)

    def __call__(
        self, q: Tensor, k: Tensor, v: Tensor, ref_k: Tensor, ref_v: Tensor, out: Tensor, heads: int
    ) -> Tensor:
        """Writes the output of `attention.two_source_attention`, whose arguments these are.

        Returns:
            int32 (N · heads, queries / BLOCK), 1: a block to be made anew, not finite.
        """
        batch, queries, _ = q.shape
        again = torch.empty(batch * heads, queries // BLOCK, dtype=torch.int32, device=q.device)
        self._kernel(heads, q.dtype).launch(
            (queries // QUERIES, batch * heads), THREADS,
            [q, q.stride(1), q.stride(0), k.shape[1], ref_k.shape[1], batch // ref_k.shape[0],
             tensor_map(k, BOX), tensor_map(v, BOX), tensor_map(sample(k), BOX),
             tensor_map(ref_k, BOX), tensor_map(ref_v, BOX), tensor_map(sample(ref_k), BOX),
             out, out.stride(1), out.stride(0), again],
        )  # fmt: skip
        return again

    def _kernel(self, heads: int, dtype: torch.dtype) -> CudaKernel:
        key = heads, dtype
        if key not in self._kernels:
            constants = {
                "SIZE": SIZE, "WIDE": WIDE, "HEADS": heads, "HEADROOM": self._headroom,
                "GROUPS": GROUPS, "KEYS": KEYS, "STAGES": STAGES, "BF16": int(dtype == torch.bfloat16),
            }  # fmt: skip
            self._kernels[key] = CudaKernel(compile_cuda(SOURCE, "sm_90a", constants), "spatial", SHARED)
        return self._kernels[key]


def sample(keys: Tensor) -> Tensor:
    """KEYS of them (N, keys, columns), evenly spaced."""
    return keys[:, :: keys.shape[1] // KEYS][:, :KEYS]
