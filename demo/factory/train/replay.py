"""A memory of training examples on the device, so that costly examples are learned from more than once."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor


class Replay:
    """The newest `capacity` examples. A full memory forgets the oldest.

    Args:
        capacity: examples held.
        device: where they are held and drawn from.
        together: neighbours that are drawn together. It divides the capacity and all numbers of examples.
    """

    def __init__(self, capacity: int, device: torch.device, *, together: int = 1) -> None:
        self._capacity = capacity
        self._device = device
        self._together = together
        self._held: dict[str, Tensor] = {}
        self._written = 0

    def __len__(self) -> int:
        return min(self._written, self._capacity)

    def add(self, examples: Mapping[str, Tensor]) -> None:
        """Add examples, batch first. The first call sets names, shapes and types."""
        if not self._held:
            self._held = {
                name: torch.empty(self._capacity, *rows.shape[1:], dtype=rows.dtype, device=self._device)
                for name, rows in examples.items()
            }
        count = len(next(iter(examples.values())))
        place = torch.arange(self._written, self._written + count, device=self._device) % self._capacity
        for name, rows in examples.items():
            self._held[name][place] = rows
        self._written += count

    def draw(self, into: Mapping[str, Tensor], generator: torch.Generator) -> None:
        """Fill the tensors `into`, batch first, with examples chosen at random."""
        count = len(next(iter(into.values())))
        groups, size = len(self) // self._together, (count // self._together, 1)
        first = self._together * torch.randint(groups, size, device=self._device, generator=generator)
        index = (first + torch.arange(self._together, device=self._device)).flatten()
        for name, rows in into.items():
            rows.copy_(self._held[name][index])

    def blank(self, count: int) -> dict[str, Tensor]:
        """Tensors for `draw` to fill with `count` examples."""
        return {
            name: torch.zeros(count, *rows.shape[1:], dtype=rows.dtype, device=self._device)
            for name, rows in self._held.items()
        }
