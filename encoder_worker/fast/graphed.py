"""A decoder's own modules in a CUDA graph: for small ones, whose launches take longer than their work."""

from __future__ import annotations

import copy
from typing import Any

import torch

from encoder_worker.fast.fixed_size import FixedSizeDecoder
from encoder_worker.vae.decoders import Decoder
from encoder_worker.vae.doubling import fold_doubling


class GraphedDecoder(FixedSizeDecoder):
    """Any decoder on any CUDA device. Arguments as `FixedSizeDecoder`."""

    def __init__(
        self, decoder: Decoder, device: torch.device, dtype: torch.dtype, count: int, h: int, w: int
    ) -> None:
        super().__init__(decoder, device, dtype, count, h, w)
        module: Any = copy.deepcopy(decoder)  # torch's stubs do not know `memory_format` below
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
