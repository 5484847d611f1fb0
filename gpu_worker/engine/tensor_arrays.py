"""Tensors of torch as arrays of numpy for the disk, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_worker.denoiser.model import ReferenceCache
from gpu_worker.denoiser.pipeline import AvatarCache


def to_array(tensor: Tensor) -> NDArray[Any]:
    """The values of a tensor on the CPU. numpy has no bfloat16, so its bits are whole numbers there."""
    bits = tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor
    array: NDArray[Any] = bits.numpy()
    return array


def from_array(array: NDArray[Any]) -> Tensor:
    """The tensor of an array from `to_array`. It shares the memory."""
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if tensor.dtype == torch.int16 else tensor


def pack_avatar(made: AvatarCache) -> dict[str, NDArray[Any]]:
    """An avatar's features as arrays, for `KeptReferences`."""
    arrays = {"latents": to_array(made.latents)}
    for i, (keys, values) in enumerate(made.reference.layers):
        arrays |= {f"keys.{i}": to_array(keys), f"values.{i}": to_array(values)}
    return arrays


def unpack_avatar(found: Mapping[str, NDArray[Any]]) -> AvatarCache | None:
    """The features of arrays from `pack_avatar`, or None where one is missing."""
    tensors = {name: from_array(array) for name, array in found.items()}
    try:
        layers = tuple((tensors[f"keys.{i}"], tensors[f"values.{i}"]) for i in range((len(found) - 1) // 2))
        return AvatarCache(tensors["latents"], ReferenceCache(layers))
    except KeyError:
        return None
