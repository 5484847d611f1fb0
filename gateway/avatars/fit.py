"""How much of an avatar's picture the model keeps when it animates it.

A model draws pictures like those of its training. A picture of another kind comes out as a smear, and nothing
in the model says so. So a second of the animation is compared with the picture itself. Nothing is assumed of
the model or the picture: official weights carry photographs, and then nobody is warned.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

#: Pixels of a side at which pictures are compared: finer lines say more about JPEG than about the model.
SIDE = 128
#: Part of the picture, from its top, that counts. Below it are the hands, which move by the pose.
UPPER = 0.62
#: Pixels by which the head may have moved, each way.
REACH = 4
#: The quantile of the frames' figures that counts: that of the frames that look most like the picture. In the
#: others the head may be turned.
STILLEST = 0.75
#: Share of the picture's edges that a carried avatar keeps, at least. Chosen on one half of the pictures of
#: `python -m demo.factory.evaluate.fit`, which reports on the other half.
LEAST_EDGES = 0.52

Plane = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Fit:
    """The parts of the picture that the animation kept, as figures."""

    #: Share of the picture's edges that the frames show, from about 0 to 1.
    edges: float
    #: Peak signal-to-noise ratio in dB of the upper part.
    psnr: float

    @property
    def carried(self) -> bool:
        """Whether the model carries the avatar: a person would know it again."""
        return self.edges >= LEAST_EDGES


def measure_fit(picture: Image.Image, frames: Sequence[Image.Image]) -> Fit:
    """Compare frames with the picture that they were made of. It takes some 10 ms a frame.

    Args:
        picture: RGB, of any size and of the frames' shape.
        frames: RGB, at least one.
    """
    truth = _plane(picture)
    matches = [_best_match(_plane(frame), truth) for frame in frames]
    edges = float(np.quantile([match[0] for match in matches], STILLEST))
    error = float(np.quantile([match[1] for match in matches], 1 - STILLEST))
    return Fit(round(edges, 3), round(-10.0 * float(np.log10(max(error, 1e-10))), 2))


def fit_of_frames(picture: Image.Image, frames: Sequence[bytes]) -> Fit:
    """As `measure_fit`, of frames as JPEG."""
    opened = []
    for jpeg in frames:
        with Image.open(io.BytesIO(jpeg), formats=["JPEG"]) as frame:
            opened.append(frame.convert("RGB"))
    return measure_fit(picture, opened)


def _plane(picture: Image.Image) -> Plane:
    """Luma (h, w) in 0..1 of the upper part, SIDE pixels wide."""
    height = max(1, round(SIDE * picture.height / picture.width))
    small = picture.resize((SIDE, height), Image.Resampling.BOX).convert("L")
    plane: Plane = np.asarray(small, np.float64)[: max(2 * REACH + 2, round(UPPER * height))] / 255
    return plane


def _best_match(made: Plane, truth: Plane) -> tuple[float, float]:
    """Edges kept and mean squared error at the shift of the frame that shows most of the picture's edges."""
    rows, columns = truth.shape
    inner = truth[REACH : rows - REACH, REACH : columns - REACH]
    best = (-np.inf, 1.0)
    for down in range(2 * REACH + 1):
        for right in range(2 * REACH + 1):
            moved = made[down : down + inner.shape[0], right : right + inner.shape[1]]
            edges = _edges_kept(moved, inner)
            if edges > best[0]:
                best = edges, float(((moved - inner) ** 2).mean())
    return best


def _edges_kept(made: Plane, truth: Plane) -> float:
    """Share of the truth's edges that lie at their places, as the evaluation's `edges_kept` has it.

    An edge that is stronger than the truth's counts as the truth's own.
    """
    shown = drawn = 0.0
    for axis in (0, 1):
        a, b = np.diff(made, axis=axis), np.diff(truth, axis=axis)
        shown += float(np.minimum(a * b, b * b).sum())
        drawn += float((b * b).sum())
    return shown / max(drawn, 1e-9)
