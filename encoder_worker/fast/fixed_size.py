"""A decoder made ready for one picture size: buffers that stay where they are, and on CUDA a graph."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from encoder_worker.vae.decoders import Decoder
from protocol.model.hardware.dtypes import dtype_name


class FixedSizeDecoder(ABC):
    """Decodes `count` frames of latents at a time: `latents` in, `run()`, `pixels` out.

    Args:
        decoder: on the CPU or the device.
        count, h, w: frames at once and the latents' size.
        dtype: float16 or bfloat16, of features and weights.
    """

    #: (count, C, h, w) float32: unscaled latents to decode.
    latents: Tensor
    #: (count, H, W, 3) uint8 RGB.
    pixels: Tensor
    #: int32 (1,): above 0 if a decoded value is not finite.
    bad: Tensor

    def __init__(
        self, decoder: Decoder, device: torch.device, dtype: torch.dtype, count: int, h: int, w: int
    ) -> None:
        self.device, self.dtype = device, dtype
        height, width = h * decoder.factor, w * decoder.factor
        self.latents = torch.zeros(count, decoder.channels, h, w, device=device)
        self.pixels = torch.empty(count, height, width, 3, dtype=torch.uint8, device=device)
        self.bad = torch.zeros(1, dtype=torch.int32, device=device)
        self._graph: torch.cuda.CUDAGraph | None = None

    def __str__(self) -> str:
        return dtype_name(self.dtype) + (" in kernels" if self._graph is None else " in a CUDA graph")

    def run(self) -> None:
        """Decodes `latents` on the device's current stream. The device must be the current one."""
        if self._graph is not None:
            self._graph.replay()
            return
        with torch.inference_mode():
            self._decode()

    @abstractmethod
    def _decode(self) -> None:
        """`latents` → `pixels` and `bad`, as single launches."""

    @torch.inference_mode()
    def record(self) -> None:
        """Keeps all launches as one CUDA graph, after a run that compiles and chooses."""
        self.latents.normal_()  # zeros would be timed too fast
        with torch.cuda.device(self.device):
            stream = torch.cuda.Stream(self.device)
            stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(stream):
                self._decode()
            torch.cuda.current_stream(self.device).wait_stream(stream)
            torch.cuda.synchronize(self.device)
            torch.cuda.empty_cache()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                self._decode()
        self._graph = graph
