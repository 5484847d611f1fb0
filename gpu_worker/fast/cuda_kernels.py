"""The kernels in CUDA C++ that serve in place of Triton's, where NVRTC compiles them."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import torch
from torch import Tensor

from gpu_worker.fast.kernels.attention import HEADROOM
from gpu_worker.fast.kernels.cuda_source import CudaError
from gpu_worker.fast.kernels.gated_cuda import CudaGated
from gpu_worker.fast.kernels.spatial_cuda import CudaSpatial
from gpu_worker.fast.kernels.temporal_cuda import CudaTemporal
from protocol.process.logs import first_line

logger = logging.getLogger(__name__)

#: The compute capability for which they were written, and on which they were run.
HOPPER = (9, 0)


@dataclass
class CudaKernels:
    """None: Triton's kernel serves."""

    temporal: CudaTemporal | None = None
    spatial: CudaSpatial | None = None
    gated: CudaGated | None = None

    def temporal_attention(self, qkv: Tensor, frames: int, heads: int) -> Tensor | None:
        """As `kernels.temporal.temporal_attention`, or None where its kernel has to serve."""
        if self.temporal is None or not self.temporal.fits(qkv.shape[2] // 3 // heads, frames):
            return None
        try:
            return self.temporal(qkv, frames, heads)
        except CudaError as error:
            logger.warning("Triton's temporal attention serves: %s", first_line(error))
            self.temporal = None
            return None

    def sampled_attention(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        ref_k: Tensor,
        ref_v: Tensor,
        out: Tensor,
        heads: int,
        size: int,
        split: tuple[int, int],
    ) -> Tensor | None:
        """As `kernels.attention.Sampled` says."""
        lengths = q.shape[1], k.shape[1], ref_k.shape[1]
        if self.spatial is None or not self.spatial.fits(*lengths, size, split):
            return None
        try:
            return self.spatial(q, k, v, ref_k, ref_v, out, heads)
        except CudaError as error:
            logger.warning("Triton's spatial attention serves: %s", first_line(error))
            self.spatial = None
            return None

    def geglu_into(self, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, *scales: float) -> bool:
        """As `CudaGated`. False: nothing is written, and another way has to serve."""
        if self.gated is None or bias is None or not self.gated.fits(out, x, weight, bias):
            return False
        try:
            self.gated(out, x, weight, bias, *scales)
        except CudaError as error:
            logger.warning("GEGLU's gate takes a pass of its own: %s", first_line(error))
            self.gated = None
            return False
        return True


def cuda_kernels(device: torch.device) -> CudaKernels:
    """Those for this CUDA device, all or none. The log says why they do not serve on a Hopper GPU."""
    capability = torch.cuda.get_device_capability(device)
    if capability != HOPPER:
        return CudaKernels()
    try:
        with torch.cuda.device(device):
            return CudaKernels(CudaTemporal(capability), CudaSpatial(int(HEADROOM)), CudaGated())
    except CudaError as error:
        logger.info("Triton's attention serves: %s", first_line(error))
        return CudaKernels()
