"""Weights that are seldom used lie in the host's memory meanwhile, and leave the GPU's to others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

#: Bytes of a block of the host's memory. Torch rounds pinned memory up to a power of two: weights that were
#: pinned one by one would take a quarter more. To pin a block takes some 30 ms, for which the driver lets no
#: other process work.
BLOCK_BYTES = 64 * 2**20

#: Weights begin at multiples of this, in bytes.
ALIGNMENT = 512


class SpareWeights:
    """Weights that may be put aside. On a CPU they stay where they are.

    The host's copy is pinned, so a gigabyte comes back in some 40 ms. The weights may be used within
    `on_device` alone. All calls must come from one thread.

    Args:
        tensors: on their device. Their values do not change.
        device: on which they are used.
    """

    def __init__(self, tensors: Iterable[Tensor], device: torch.device) -> None:
        #: The weights by block of the host's memory.
        self._blocks = list(_by_block(tensors))
        self._device = device
        #: Copies of the first blocks' weights in the host's memory, as far as they were put aside once.
        self._host: list[list[Tensor]] = []
        #: Blocks that are aside. These are the first ones.
        self._aside = 0

    @property
    def aside(self) -> bool:
        """Whether the device lacks some of them."""
        return self._aside > 0

    def put_aside(self) -> None:
        """Frees the device's memory. The first time copies the weights to the host."""
        while self.put_some():
            pass

    def put_some(self) -> bool:
        """Puts one block aside, which takes a moment. Returns False if all were aside."""
        if self._device.type == "cpu" or self._aside == len(self._blocks):
            return False
        block = self._blocks[self._aside]
        with torch.inference_mode(False):
            if self._aside == len(self._host):
                self._host.append(_copied(block))
            for tensor, host in zip(block, self._host[self._aside], strict=True):
                tensor.data = host
        self._aside += 1
        return True

    def bring_back(self) -> None:
        """The weights are on their device from now on."""
        with torch.inference_mode(False):
            for block, copies in zip(self._blocks[: self._aside], self._host, strict=False):
                for tensor, host in zip(block, copies, strict=True):
                    tensor.data = host.to(self._device, non_blocking=True)
        self._aside = 0

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """The weights are on their device meanwhile. Afterwards they lie where they lay before."""
        before = self._aside
        if not before:
            yield
            return
        self.bring_back()
        try:
            yield
        finally:
            while self._aside < before:
                self.put_some()
            if self._device.type == "cuda":
                torch.cuda.empty_cache()


def weights_of(*networks: nn.Module) -> list[Tensor]:
    """All parameters and buffers of networks."""
    return [tensor for network in networks for tensor in (*network.parameters(), *network.buffers())]


def _by_block(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The tensors in order, as many together as fit into a block. A larger one has a block of its own."""
    block, filled = list[Tensor](), 0
    for tensor in tensors:
        if block and filled + _space(tensor) > BLOCK_BYTES:
            yield block
            block, filled = [], 0
        block.append(tensor)
        filled += _space(tensor)
    if block:
        yield block


def _copied(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Copies that share one block of the host's memory, each with its tensor's order of dimensions."""
    memory = _pinned(sum(map(_space, tensors)))
    copies, begin = [], 0
    for tensor in tensors:
        layout = torch.empty_like(tensor, device="meta")
        part = memory[begin : begin + tensor.numel() * tensor.element_size()].view(tensor.dtype)
        copies.append(part.as_strided(layout.shape, layout.stride()).copy_(tensor.detach()))
        begin += _space(tensor)
    return copies


def _space(tensor: Tensor) -> int:
    """Bytes of a block that a tensor takes."""
    return -(-tensor.numel() * tensor.element_size() // ALIGNMENT) * ALIGNMENT


def _pinned(size: int) -> Tensor:
    """So many bytes of the host's memory, pinned where that can be had."""
    try:
        return torch.empty(size, dtype=torch.uint8, pin_memory=True)
    except RuntimeError:  # the system limits pinned memory, or there is no GPU
        return torch.empty(size, dtype=torch.uint8)
