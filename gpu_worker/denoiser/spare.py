"""Weights that are seldom used lie in the host's memory meanwhile, and leave the GPU's to others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class SpareWeights:
    """Weights that may be put aside. On a CPU they stay where they are.

    The host's copy is pinned, so a gigabyte comes back in some 40 ms. The weights may be used within
    `on_device` alone. All calls must come from one thread.

    Args:
        tensors: on their device. Their values do not change.
        device: on which they are used.
    """

    def __init__(self, tensors: Iterable[Tensor], device: torch.device) -> None:
        self._tensors = list(tensors)
        self._device = device
        #: The weights in the host's memory, in the order of `_tensors`. None before they were put aside.
        self._host: list[Tensor] | None = None
        self._aside = False

    @property
    def aside(self) -> bool:
        """Whether the device holds none of them."""
        return self._aside

    def put_aside(self) -> None:
        """Frees the device's memory. The first time copies the weights to the host."""
        if self._device.type == "cpu" or self._aside:
            return
        with torch.inference_mode(False):
            if self._host is None:
                self._host = [_pinned(tensor) for tensor in self._tensors]
            for tensor, host in zip(self._tensors, self._host, strict=True):
                tensor.data = host
        self._aside = True

    def bring_back(self) -> None:
        """The weights are on their device from now on."""
        if not self._aside or self._host is None:
            return
        with torch.inference_mode(False):
            for tensor, host in zip(self._tensors, self._host, strict=True):
                tensor.data = host.to(self._device, non_blocking=True)
        self._aside = False

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """The weights are on their device meanwhile. Afterwards they lie where they lay before."""
        if not self._aside:
            yield
            return
        self.bring_back()
        try:
            yield
        finally:
            self.put_aside()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()


def weights_of(*networks: nn.Module) -> list[Tensor]:
    """All parameters and buffers of networks."""
    return [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]


def _pinned(tensor: Tensor) -> Tensor:
    """A copy in the host's memory, pinned where that can be had."""
    try:
        copy = torch.empty_like(tensor, device="cpu", pin_memory=True)
    except RuntimeError:  # the system limits pinned memory, or there is no GPU
        copy = torch.empty_like(tensor, device="cpu")
    return copy.copy_(tensor.detach()).requires_grad_(False)
