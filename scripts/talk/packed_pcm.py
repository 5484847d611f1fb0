"""Lossless packing of 16-bit sound into arrays for an npz file.

Fixed linear prediction of order two (as in FLAC's fixed predictors) leaves small residuals. Their high
and low bytes are compressed apart by LZMA. Both are in the standard library, so reading needs numpy alone.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def pack_pcm(audio: NDArray[np.int16]) -> dict[str, NDArray[Any]]:
    """The arrays `high`, `low` and `samples` that `unpack_pcm` turns back into `audio`, shape (n,)."""
    # Residuals wrap at 16 bits, and unwrap when summed.
    residual = np.diff(audio.astype(np.int32), n=2, prepend=[0, 0]).astype(np.int16)
    # Signs are folded in, so that small numbers of either sign have a high byte of 0.
    folded = (residual.astype(np.uint16) << 1) ^ (residual >> 15).astype(np.uint16)
    parts = {"high": (folded >> 8).astype(np.uint8), "low": (folded & 255).astype(np.uint8)}
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 4, "lc": 0, "lp": 0, "pb": 0}]
    packed: dict[str, NDArray[Any]] = {
        name: np.frombuffer(lzma.compress(part.tobytes(), filters=filters), dtype=np.uint8)
        for name, part in parts.items()
    }
    return packed | {"samples": np.array(len(audio))}


def unpack_pcm(arrays: Mapping[str, NDArray[Any]]) -> NDArray[np.int16]:
    """The sound, shape (n,), that `pack_pcm` packed.

    Raises:
        ValueError: the arrays hold another number of samples than they say.
    """
    folded = np.frombuffer(lzma.decompress(arrays["high"].tobytes()), np.uint8).astype(np.uint16) << 8
    folded |= np.frombuffer(lzma.decompress(arrays["low"].tobytes()), np.uint8)
    samples = int(arrays["samples"])
    if len(folded) != samples:
        raise ValueError(f"packed sound is damaged: {len(folded)} samples, expected {samples}")
    residual = (folded >> 1).astype(np.int16) ^ -(folded & 1).astype(np.int16)
    return np.cumsum(np.cumsum(residual, dtype=np.int16), dtype=np.int16)
