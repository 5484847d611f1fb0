"""Temporal attention by `temporal_attention.cu`: one warp a head of a position, its frames in registers."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from gpu_worker.fast.kernels.cuda_source import CudaKernel, compile_cuda, nvrtc

SOURCE = Path(__file__).with_name("temporal_attention.cu")
#: Threads of a block, and its warps.
THREADS, WARPS = 256, 8
#: The matrix units' rows: the most frames.
ROWS = 16


class CudaTemporal:
    """The kernel for each size of heads, compiled when it first comes.

    Args:
        capability: the GPU's.

    Raises:
        CudaError: there is no compiler. When called: it refuses, or the driver does.
    """

    def __init__(self, capability: tuple[int, int]) -> None:
        nvrtc()
        self._architecture = f"sm_{capability[0]}{capability[1]}"
        self._kernels: dict[tuple[int, int, int, torch.dtype], CudaKernel] = {}

    def fits(self, size: int, frames: int) -> bool:
        """Whether it takes heads of this size, and so many frames."""
        return size % 32 in (0, 8, 16) and frames <= ROWS

    def __call__(self, qkv: Tensor, frames: int, heads: int) -> Tensor:
        """qkv (B·frames, positions, 3·width), q, k and v side by side → (B·frames, positions, width)."""
        batch, positions, width = qkv.shape[0], qkv.shape[1], qkv.shape[2] // 3
        kernel = self._kernel(width // heads, heads, frames, qkv.dtype)
        out = torch.empty(batch, positions, width, dtype=qkv.dtype, device=qkv.device)
        kernel.launch(
            (-(-positions * heads // WARPS), batch // frames), THREADS,
            [qkv, out, positions, qkv.stride(1), qkv.stride(0), out.stride(1), out.stride(0)],
        )  # fmt: skip
        return out

    def _kernel(self, size: int, heads: int, frames: int, dtype: torch.dtype) -> CudaKernel:
        key = size, heads, frames, dtype
        if key not in self._kernels:
            constants = {"SIZE": size, "HEADS": heads, "FRAMES": frames, "BF16": int(dtype == torch.bfloat16)}
            binary = compile_cuda(SOURCE, self._architecture, constants)
            self._kernels[key] = CudaKernel(binary, "temporal", 0)
        return self._kernels[key]
