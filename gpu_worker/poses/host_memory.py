"""Pose features as tensors in the host's memory, from which a GPU fetches a clip's within a millisecond.

A pose of 12 s has 0.75 GB of features at 512² and 1.7 GB at 768². On the GPU they would take what its other
work needs. The memory is pinned, so that the copies run beside the clip that is denoised.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_worker.engine.tensor_arrays import from_array, to_array
from protocol.process.logs import first_line

logger = logging.getLogger(__name__)

#: Bytes of a block. Torch rounds pinned memory up to a power of two, so a frame alone would waste much.
BLOCK_BYTES = 64 * 2**20


class TensorMemory:
    """Keeps features as tensors where they are made."""

    def keep(self, feature: Tensor) -> Tensor:
        """A copy of the feature. A view would hold the memory of its whole batch."""
        return feature.clone()

    def join(self, features: Sequence[Tensor]) -> Tensor:
        """Features (c, h, w) of n frames → one tensor (n, c, h, w)."""
        return torch.stack(list(features))

    def to_array(self, features: Tensor) -> NDArray[Any]:
        """The features for the disk."""
        return to_array(features)

    def from_array(self, features: NDArray[Any]) -> Tensor:
        """The features of the disk, mapped."""
        return from_array(features)


class HostMemory(TensorMemory):
    """Keeps features for one device in the host's memory. Not thread-safe.

    Args:
        device: that makes the features and needs them again.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pins = device.type == "cuda"
        #: Places of the newest block that are free. All features of a store have one shape and dtype.
        self._free: list[Tensor] = []

    @torch.inference_mode()  # the prefetch thread's mode: others cannot write into its tensors
    def keep(self, feature: Tensor) -> Tensor:
        """A copy (c, h, w) of a feature that lies on the device. It may be read at once."""
        if not self._free:
            self._free = [*self._block(feature)]
        place = self._free.pop()
        place.copy_(feature)
        return place

    def join(self, features: Sequence[Tensor]) -> Tensor:
        """Features (n, c, h, w) on the device, in the current stream, of those here or on the device."""
        first = features[0]
        joined = torch.empty((len(features), *first.shape), dtype=first.dtype, device=self._device)
        for place, feature in zip(joined, features, strict=True):
            place.copy_(feature, non_blocking=True)
        return joined

    def _block(self, like: Tensor) -> Tensor:
        count = max(1, BLOCK_BYTES // (like.numel() * like.element_size()))
        shape = (count, *like.shape)
        if self._pins:
            try:
                return torch.empty(shape, dtype=like.dtype, pin_memory=True)
            except RuntimeError as error:  # the system limits pinned memory
                self._pins = False
                logger.warning("pose features lie in memory that is not pinned: %s", first_line(error))
        return torch.empty(shape, dtype=like.dtype)
