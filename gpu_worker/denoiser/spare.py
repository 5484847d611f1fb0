"""A network that is seldom used lies in the host's memory meanwhile, and leaves the GPU's to others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class SpareNetwork:
    """A network that may be put aside. On a CPU it stays where it is.

    The host's copy is pinned, so a gigabyte comes back in some 40 ms. The network may be used within
    `on_device` alone. All calls must come from one thread.

    Args:
        network: on its device. Its weights do not change.
        device: on which it computes.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network = network
        self._device = device
        #: The weights in the host's memory, in the order of `_tensors`. None before they were put aside.
        self._host: list[Tensor] | None = None
        self._aside = False

    @property
    def aside(self) -> bool:
        """Whether the device holds nothing of it."""
        return self._aside

    def put_aside(self) -> None:
        """Frees the device's memory. The first time copies the weights to the host."""
        if self._device.type == "cpu" or self._aside:
            return
        with torch.inference_mode(False):
            tensors = self._tensors()
            if self._host is None:
                self._host = [_pinned(tensor) for tensor in tensors]
            for tensor, host in zip(tensors, self._host, strict=True):
                tensor.data = host
        self._aside = True

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """The network is on its device meanwhile. Afterwards it lies where it lay before."""
        if not self._aside or self._host is None:
            yield
            return
        with torch.inference_mode(False):
            for tensor, host in zip(self._tensors(), self._host, strict=True):
                tensor.data = host.to(self._device, non_blocking=True)
        self._aside = False
        try:
            yield
        finally:
            self.put_aside()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()

    def _tensors(self) -> list[Tensor]:
        return [*self._network.parameters(), *self._network.buffers()]


def _pinned(tensor: Tensor) -> Tensor:
    """A copy in the host's memory, pinned where that can be had."""
    try:
        copy = torch.empty_like(tensor, device="cpu", pin_memory=True)
    except RuntimeError:  # the system limits pinned memory, or there is no GPU
        copy = torch.empty_like(tensor, device="cpu")
    return copy.copy_(tensor.detach()).requires_grad_(False)
