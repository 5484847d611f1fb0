"""A decoder by OpenVINO on a CPU, compiled for one number of frames and one size."""

from __future__ import annotations

from pathlib import Path

import torch

from encoder_worker.vae.decoders import Decoder
from protocol.model.cpu_graph import CpuEngine, load_graph

#: Parameters above which OpenVINO serves only where it is asked for: the second copy costs too much memory.
LARGE_DECODER = 20_000_000


class OpenVinoDecoder:
    """Decodes up to `frames` latents of one size.

    Args:
        decoder: float32, on the CPU.
        frames: decoded at once. Fewer are padded.
        h: height of the latents.
        w: width of the latents.
        dtype: of the arithmetic, float32 or bfloat16.
        engine: where compiled networks are kept, and how many threads they use.

    Raises:
        Exception: whatever fails in OpenVINO. torch can decode instead.
    """

    def __init__(
        self, decoder: Decoder, frames: int, h: int, w: int, dtype: torch.dtype, engine: CpuEngine
    ) -> None:
        self.size = (h, w)
        self.dtype = dtype
        self._padded = torch.zeros(frames, decoder.channels, h, w)
        name = f"decoder-{frames}x{h}x{w}"
        sources = Path(__file__).parent
        self._graph = load_graph(decoder, [self._padded], dtype, engine, name=name, sources=sources)

    @torch.inference_mode()
    def __call__(self, latents: torch.Tensor) -> torch.Tensor:
        """Unscaled latents (n, C, h, w), n ≤ frames → pictures (n, 3, H, W), float32.

        The next call writes over the pictures.
        """
        count = len(latents)
        if count == len(self._padded):
            return self._graph(latents)
        padded = torch.zeros_like(self._padded)
        padded[:count] = latents
        return self._graph(padded)[:count]
