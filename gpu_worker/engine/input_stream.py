"""The way of a clip's inputs to the device, beside the clip that is denoised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from gpu_worker.engine.device import device_errors, use_device
from gpu_worker.engine.session_state import SESSION_NOISE, SessionState
from protocol.wire.messages import Clip


class InputStream:
    """Belongs to the prefetch thread. On a CPU tensors stay where they are.

    Args:
        device: that denoises.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Of a higher priority than the clip that is denoised, whose kernels leave no gap.
        self._stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None
        #: The noise that all clips of a shape share, by (frames, C, h, w). There are few shapes.
        self._noises: dict[tuple[int, ...], Tensor] = {}

    @contextmanager
    def current(self) -> Iterator[None]:
        """Whatever is given to the device meanwhile goes this way."""
        use_device(self._device)
        on_stream = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        with device_errors(self._device), torch.inference_mode(), on_stream:
            yield

    def send(self, tensor: Tensor) -> Tensor:
        """The tensor on the device, after `passed`."""
        if self._stream is None:
            return tensor
        # From pinned memory, so that the copy runs beside the clip that is being denoised.
        return tensor.pin_memory().to(self._device, non_blocking=True)

    def noise(self, state: SessionState, clip: Clip, shape: tuple[int, int, int]) -> Tensor:
        """The clip's starting noise (F, C, h, w), float32. `shape` is (C, h, w)."""
        if state.way != SESSION_NOISE:
            return self.send(torch.from_numpy(state.noise(clip, shape)))
        key = (len(clip.tokens), *shape)
        if key not in self._noises:
            self._noises[key] = self.send(torch.from_numpy(state.noise(clip, shape)))
        return self._noises[key]

    def passed(self) -> torch.cuda.Event | None:
        """The event after which everything sent until now may be read. None on a CPU."""
        return None if self._stream is None else self._stream.record_event()
