"""The renderer as one CUDA graph, which launches some fifteen hundred small kernels at once."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from demo.factory.figure.renderer import Renderer
from demo.factory.figure.state import FigureState

#: Calls before the capture, in which the libraries choose their kernels and allocate their memory.
WARM_UP = 3


class CapturedRenderer:
    """Draws batches of one size by replaying a recording of `Renderer.render`. The pictures are the same.

    Args:
        renderer: on a CUDA device.
        batch: number of pictures of a call.
        pool: a `torch.cuda.graph_pool_handle()` whose memory several recordings share. A call of any of them
            then overwrites the pictures of all. None: the recording keeps the memory of one call for itself.

    Raises:
        ValueError: the renderer is not on a CUDA device.
    """

    def __init__(self, renderer: Renderer, batch: int, pool: Any = None) -> None:
        if renderer.device.type != "cuda":
            raise ValueError(f"the renderer draws on {renderer.device}; CUDA graphs need a CUDA device")
        self._identity = torch.zeros(batch, dtype=torch.long, device=renderer.device)
        self._state = FigureState.neutral(batch, renderer.device)
        stream = torch.cuda.Stream(renderer.device)
        stream.wait_stream(torch.cuda.current_stream(renderer.device))
        with torch.cuda.stream(stream):
            for _ in range(WARM_UP):
                renderer.render(self._identity, self._state)
        torch.cuda.current_stream(renderer.device).wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        # Thread-local: other threads of a training process (NCCL's) ask the driver for events meanwhile.
        with torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local"):
            self._pictures = renderer.render(self._identity, self._state)

    def render(self, identity: Tensor, state: FigureState) -> Tensor:
        """Draw as `Renderer.render` does, for the batch size of the recording.

        The next call overwrites the result: clone it to keep it.

        Raises:
            ValueError: the batch has another size.
        """
        if identity.shape != self._identity.shape:
            raise ValueError(f"a batch of {len(identity)}; this recording draws {len(self._identity)}")
        self._identity.copy_(identity, non_blocking=True)
        for field in fields(FigureState):
            getattr(self._state, field.name).copy_(getattr(state, field.name), non_blocking=True)
        self._graph.replay()
        return self._pictures
