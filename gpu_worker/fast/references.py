"""Space for the keys and values of an avatar's reference, where the kernels read them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gpu_worker.denoiser.model import ReferenceCache
from gpu_worker.fast.weights import Heads, Network, Spatial


@dataclass(eq=False)
class _Space:
    """Tensors by slot, and the reference that fills them now."""

    blocks: list[Spatial]
    height: int
    width: int
    tensors: dict[int, Tensor] = field(default_factory=dict)
    filled_from: ReferenceCache | None = None

    def fill(self, reference: ReferenceCache) -> None:
        if self.filled_from is reference:
            return
        for block in self.blocks:
            if block.slot in self.tensors:
                self._fill_block(block, self.tensors[block.slot], reference.layers[block.slot])
        self.filled_from = reference

    def _fill_block(self, block: Spatial, target: Tensor, source: tuple[Tensor, Tensor]) -> None:
        heads, (h, w) = block.heads, halved(self.height, self.width, block.level)
        kv = torch.zeros(1, h * w, 2, heads.count, heads.wide, device=source[0].device, dtype=source[0].dtype)
        for to, x in zip(kv.unbind(2), source, strict=True):
            to[..., : heads.size] = x.unflatten(2, (heads.count, heads.size))
        kv[..., heads.size : heads.size + 1] = 1
        kv = kv.flatten(2)
        target[:, -kv.shape[1] :] = kv  # the end of it where the frame's own come first


@dataclass(frozen=True, eq=False)
class ShapeReferences:
    """The space of one shape of clips."""

    #: As `network.StepInputs.reference` and `joined` have them.
    tensors: list[Tensor]
    joined: frozenset[int]
    spaces: tuple[_Space, _Space]

    def fill(self, reference: ReferenceCache) -> None:
        """Has this reference there, for the clips that are made next."""
        for space in self.spaces:
            space.fill(reference)


class ReferenceSpaces:
    """Makes space for each shape. Clips of any length share whatever has no place for their own frames.

    Args:
        network: its spatial attentions.
        two_sources: as `TorchOps.two_sources`. Elsewhere space begins with the frame's own keys and values.
        device: of the tensors.
        dtype: of the tensors.
    """

    def __init__(
        self,
        network: Network,
        two_sources: Callable[[Heads, int], bool],
        device: torch.device,
        dtype: torch.dtype,
    ) -> None:
        self._blocks = list(network.spatials())
        self._two_sources = two_sources
        self._device, self._dtype = device, dtype
        self._shared: dict[tuple[int, int], _Space] = {}

    def for_shape(self, frames: int, height: int, width: int) -> ShapeReferences:
        """Space for clips of `frames` frames, whose latents have this height and width."""
        shared = self._shared.setdefault((height, width), _Space(self._blocks, height, width))
        own = _Space(self._blocks, height, width)
        tensors, joined = [], set()
        for block in self._blocks:
            h, w = halved(height, width, block.level)
            apart = self._two_sources(block.heads, h * w)
            space = shared if apart else own
            if not apart:
                joined.add(block.slot)
            if block.slot not in space.tensors:
                shape = (1, h * w) if apart else (frames, 2 * h * w)
                space.tensors[block.slot] = torch.zeros(
                    *shape, 2 * block.heads.count * block.heads.wide, device=self._device, dtype=self._dtype
                )
            tensors.append(space.tensors[block.slot])
        return ShapeReferences(tensors, frozenset(joined), (shared, own))


def halved(height: int, width: int, times: int) -> tuple[int, int]:
    """The sides of an image after `times` convolutions of stride 2."""
    for _ in range(times):
        height, width = (height + 1) // 2, (width + 1) // 2
    return height, width
