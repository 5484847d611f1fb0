"""Sound of the kinds that programs have, as the wire takes it."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from echomimic_live_client.wire import Samples

#: Sound that can be pushed. Bytes are int16, little-endian, as speech engines and WAV files have it.
Sound16: TypeAlias = bytes | bytearray | memoryview
PcmLike: TypeAlias = npt.NDArray[Any] | Sound16

#: Samples are in −1..1. The server takes hot signals up to this size.
MAX_AMPLITUDE = 16.0


def to_samples(pcm: PcmLike) -> Samples:
    """A copy of one channel of sound, as float32 in −1..1, shape (n,).

    Args:
        pcm: int16, float32 or float64, shape (n,) or (n, 1), or the bytes of int16 samples.

    Raises:
        ValueError: it is sound of another kind, has several channels, or holds NaN or huge samples.
    """
    if isinstance(pcm, (bytes, bytearray, memoryview)):
        if memoryview(pcm).nbytes % 2:
            raise ValueError("bytes of sound are int16: their number is even")
        pcm = np.frombuffer(pcm, "<i2")
    if pcm.ndim == 2 and pcm.shape[1] == 1:
        pcm = pcm[:, 0]
    if pcm.ndim != 1:
        raise ValueError(f"sound of shape {pcm.shape}: give one channel, shape (n,)")
    if pcm.dtype.kind == "i" and pcm.dtype.itemsize == 2:
        scaled: Samples = pcm.astype(np.float32)
        scaled /= 32768
        return scaled
    if pcm.dtype.kind != "f":
        raise ValueError(f"sound of type {pcm.dtype}: give int16 or float32")
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes infinite, and is refused below
        samples: Samples = pcm.astype(np.float32)
    peak = float(np.abs(samples).max(initial=0.0))
    if not peak <= MAX_AMPLITUDE:
        raise ValueError(f"a sample of size {peak:.3g}: give floats in -1..1, or int16")
    return samples
