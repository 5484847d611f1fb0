"""The way of a clip's inputs to the device, beside the clip that is denoised."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor

from gpu_worker.engine.device import device_errors
from protocol.model.hardware.devices import use_device


class InputStream:
    """Belongs to the prefetch thread. On a CPU tensors stay where they are.

    Args:
        device: that denoises.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Of a higher priority than the clip that is denoised, whose kernels leave no gap.
        self._stream = torch.cuda.Stream(device, priority=-1) if device.type == "cuda" else None

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

    def passed(self) -> torch.cuda.Event | None:
        """The event after which everything sent until now may be read. None on a CPU."""
        return None if self._stream is None else self._stream.record_event()
