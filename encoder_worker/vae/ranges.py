"""The ranges of a decoder with eight-bit products (`int8`), and its tensors in eight bits. Without torch.

An input's range is measured once, on drawn people (`python -m demo.factory.calibrate`), and lies beside the
weights. It is the greatest value: a tighter range, by the least mean error, came no nearer to float32.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder_worker.graph_decoder import RANGES_FILE
from protocol.model.ranges_table import Ranges, read_ranges

logger = logging.getLogger(__name__)

#: Levels of an input after ReLU, whose least value is 0, and of a weight on each side of zero.
INPUT_LEVELS = 255
WEIGHT_LEVELS = 127

#: Least greatest input, and least greatest weight of an output channel.
LEAST_INPUT = 1e-6
LEAST_WEIGHT = 1e-8

#: How the names of a rounded convolution's tensors end: weights, their steps, and the greatest input.
ROUNDED, STEPS, GREATEST = ".rounded", ".steps", ".greatest"


def read_table(folder: Path, digest: str, names: Collection[str]) -> Ranges | None:
    """The ranges beside the weights, or None where there are none for these weights. The log says why.

    Args:
        folder: of the VAE.
        digest: of the decoder's weights, from `tensors_digest`.
        names: of the convolutions that round.
    """
    file = folder / RANGES_FILE
    read = read_ranges(file, "decoding without int8")
    if read is None:
        return None
    weights, ranges = read
    if weights != digest or set(ranges) != set(names):
        logger.warning("%s belongs to other weights, decoding without int8", file)
        return None
    return ranges


def tensors_digest(tensors: Iterable[tuple[str, NDArray[Any]]]) -> str:
    """A digest of a decoder's weights, in the order in which its module has them."""
    digest = hashlib.sha256()
    for name, value in tensors:
        digest.update(name.encode() + np.ascontiguousarray(value, np.float32).tobytes())
    return digest.hexdigest()[:24]


def eight_bit_tensors(weights: Mapping[str, NDArray[Any]], ranges: Ranges) -> dict[str, NDArray[Any]]:
    """A decoder's tensors, with those of the convolutions that round in eight bits.

    Args:
        weights: of the decoder.
        ranges: of all its convolutions that round.
    """
    made = dict(weights)
    for name, greatest in ranges.items():
        weight = np.asarray(made.pop(f"{name}.weight"), np.float32)
        made[name + ROUNDED], made[name + STEPS] = _rounded(weight)
        step = np.float32(max(greatest, LEAST_INPUT) / INPUT_LEVELS)
        made[name + GREATEST] = np.asarray(step * np.float32(INPUT_LEVELS))
    return made


def _rounded(weight: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Weights (O, I, 3, 3) as whole numbers, and the step of each output channel (O,)."""
    peaks = np.maximum(np.abs(weight).max((1, 2, 3)), np.float32(LEAST_WEIGHT))
    steps = peaks / np.float32(WEIGHT_LEVELS)
    # In the order in which OpenVINO computes it, so that a value between two levels falls to the same side.
    high = (steps * np.float32(WEIGHT_LEVELS))[:, None, None, None]
    levels = np.rint((weight + high) / (high + high) * np.float32(2 * WEIGHT_LEVELS)) - WEIGHT_LEVELS
    return levels.astype(np.int8), steps
