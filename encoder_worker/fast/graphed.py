"""A decoder's own modules in a CUDA graph: for small ones, whose launches take longer than their work.

AutoencoderTiny's are replaced by those of `tiny`.
"""

from __future__ import annotations

import copy
from typing import Any

import torch

from encoder_worker.fast.fixed_size import FixedSizeDecoder
from encoder_worker.fast.tiny import fuse_tiny
from encoder_worker.vae.decoders import Decoder, TinyDecoder
from encoder_worker.vae.doubling import fold_doubling


class GraphedDecoder(FixedSizeDecoder):
    """Any decoder on any CUDA device.

    Args:
        decoder, device, dtype, count, h, w: as `FixedSizeDecoder`.
        fused: whether AutoencoderTiny's layers are replaced.
    """

    def __init__(
        self,
        decoder: Decoder,
        device: torch.device,
        dtype: torch.dtype,
        count: int,
        h: int,
        w: int,
        *,
        fused: bool = True,
    ) -> None:
        super().__init__(decoder, device, dtype, count, h, w)
        module: Any = copy.deepcopy(decoder)  # torch's stubs do not know `memory_format` below
        if not (fused and isinstance(module, TinyDecoder) and fuse_tiny(module.decoder)):
            fold_doubling(module)
        self._module: Any = module.to(device, dtype, memory_format=torch.channels_last)
        if device.type == "cuda":
            self.record()

    def _decode(self) -> None:
        x = self.latents.to(self.dtype, memory_format=torch.channels_last)
        with torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False):
            pictures = self._module(x).float()
        self.bad.copy_(pictures.sum().isfinite().logical_not())
        levels = pictures.mul_(127.5).add_(127.5).round_().clamp_(0, 255)
        self.pixels.copy_(levels.permute(0, 2, 3, 1))
