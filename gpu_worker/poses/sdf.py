"""Antialiased pose maps from signed distances to capsules, batched, in numpy or in torch.

Poses whose npz says `style = "sdf"` are drawn here. Training draws them in torch and serving in numpy, by the
same lines, so both see the same pixels. Each hand is a skeleton of 20 bones in the hue order of the official
drawing. The person's left hand has paler colours, so that crossed hands stay apart. The marks (breathing,
head, eyelids, gaze, brows) follow as thick lines and discs.
"""

from __future__ import annotations

import colorsys
import functools
import importlib
import math
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from protocol.model.assets import HAND_BONES, MIN_POINT_SCORE

if TYPE_CHECKING:
    from torch import Tensor

#: An array of numpy, or a tensor of torch on any device.
A = TypeVar("A", NDArray[Any], "Tensor")

#: The points at the fingers' tips.
HAND_TIPS = (4, 8, 12, 16, 20)
#: Radius of a bone, as a fraction of the height.
BONE_RADIUS = 0.0070
#: Radius of the disc at a finger's tip, as a fraction of the height.
TIP_RADIUS = 0.0100
#: Saturation of the person's left and right hand.
_SATURATION = (0.55, 1.0)


@functools.lru_cache(maxsize=1)
def _hand_capsules() -> tuple[list[tuple[int, int]], list[tuple[float, float, float]], list[float]]:
    """Edges over the 42 points of both hands, their colours, and their radii, in drawing order."""
    edges: list[tuple[int, int]] = []
    colours: list[tuple[float, float, float]] = []
    radii: list[float] = []
    for hand, saturation in enumerate(_SATURATION):
        for number, (a, b) in enumerate(HAND_BONES):
            edges.append((21 * hand + a, 21 * hand + b))
            colours.append(colorsys.hsv_to_rgb(number / len(HAND_BONES), saturation, 1.0))
            radii.append(BONE_RADIUS)
        for tip in HAND_TIPS:
            edges.append((21 * hand + tip, 21 * hand + tip))
            colours.append((1.0, 1.0, 1.0))
            radii.append(TIP_RADIUS)
    return edges, colours, radii


def draw_pose_maps(
    hands: A,
    hands_score: A,
    marks: A,
    marks_edges: A,
    marks_color: A,
    marks_radius: A,
    size: int | tuple[int, int],
) -> A:
    """Draws hands, then marks, on black.

    Args:
        hands: points (B, 2, 21, 2), as fractions of width and height.
        hands_score: (B, 2, 21). A point below 0.3, or not finite, is left out with its bones.
        marks: points (B, M, 2), as fractions of width and height.
        marks_edges: whole numbers (E, 2): the marks that each capsule joins.
        marks_color: (E, 3) in 0..1.
        marks_radius: (E,), as fractions of the height.
        size: side, or (height, width), in pixels.

    Returns:
        Maps (B, 3, height, width), float32 in 0..1, in the library and on the device of `hands`.

    Raises:
        ValueError: the shapes do not fit together.
    """
    height, width = (size, size) if isinstance(size, int) else size
    batch = len(hands)
    if hands.shape[1:] != (2, 21, 2) or hands_score.shape != hands.shape[:-1] or marks.shape[0] != batch:
        raise ValueError(
            f"pose shapes do not fit: hands {tuple(hands.shape)}, hands_score {tuple(hands_score.shape)}, "
            f"marks {tuple(marks.shape)}; expected (B, 2, 21, 2), (B, 2, 21), (B, M, 2)"
        )
    points, seen = _pixels(hands, hands_score, marks, height, width)
    edges, colours, radii = _hand_capsules()
    edges = edges + [(42 + a, 42 + b) for a, b in marks_edges.tolist()]
    colours = colours + [tuple(colour) for colour in marks_color.tolist()]
    radii = [radius * height for radius in radii + marks_radius.tolist()]

    floats = _Floats(hands)
    image = floats.zeros((batch, 3, height, width))
    ys, xs = (floats.count(n) + 0.5 for n in (height, width))
    for (a, b), colour, radius in zip(edges, colours, radii, strict=True):
        start, stop = points[:, a], points[:, b]
        # Only the capsule's own rectangle is computed: most of a map is empty.
        rows, columns = _extent(start, stop, radius, height, width)
        cover = _capsule(xs[columns], ys[rows], start, stop, radius)
        cover = cover * (seen[:, a] & seen[:, b])[:, None, None]
        touched = image[:, :, rows, columns]
        touched += cover[:, None] * (floats.of(colour)[None, :, None, None] - touched)
    made: A = image
    return made


class _Floats:
    """Makes float32 arrays in the library and on the device of another one."""

    def __init__(self, like: Any) -> None:
        self._library = _library_of(like)
        self._place = {} if isinstance(like, np.ndarray) else {"device": like.device}

    def zeros(self, shape: tuple[int, ...]) -> Any:
        return self._library.zeros(shape, dtype=self._library.float32, **self._place)

    def count(self, length: int) -> Any:
        """0, 1, … up to `length`."""
        return self._library.arange(length, dtype=self._library.float32, **self._place)

    def of(self, values: object) -> Any:
        return self._library.asarray(values, dtype=self._library.float32, **self._place)


def _library_of(array: object) -> Any:
    """numpy, or torch, which is imported already where a tensor comes."""
    return np if isinstance(array, np.ndarray) else importlib.import_module("torch")


def _pixels(hands: Any, hands_score: Any, marks: Any, height: int, width: int) -> tuple[Any, Any]:
    """The points of hands and marks in pixels, (B, 42 + M, 2), and which of them are seen, (B, 42 + M)."""
    batch, library, floats = len(hands), _library_of(hands), _Floats(hands)
    points = floats.of(library.concatenate([hands.reshape(batch, 42, 2), marks], axis=1))
    finite = library.isfinite(points).all(-1)
    by_score = library.concatenate(
        [hands_score.reshape(batch, 42) >= MIN_POINT_SCORE, library.ones_like(marks[..., 0]) > 0], axis=1
    )
    return library.nan_to_num(points) * floats.of([width, height]), by_score & finite


def _extent(start: Any, stop: Any, radius: float, height: int, width: int) -> tuple[slice, slice]:
    """Rows and columns that a capsule can touch. On a GPU that is all of them: reading back costs more."""
    library = _library_of(start)
    if library is not np and start.device.type != "cpu":
        return slice(0, height), slice(0, width)
    both = library.stack([start, stop])
    low = [math.floor(edge) for edge in (library.amin(both, axis=(0, 1)) - (radius + 1)).tolist()]
    high = [math.ceil(edge) for edge in (library.amax(both, axis=(0, 1)) + (radius + 2)).tolist()]
    rows = slice(min(max(low[1], 0), height), min(max(high[1], 0), height))
    return rows, slice(min(max(low[0], 0), width), min(max(high[0], 0), width))


def _capsule(xs: Any, ys: Any, start: Any, stop: Any, radius: float) -> Any:
    """Coverage (B, rows, columns) of the capsule from pixel start to stop (B, 2), soft over one pixel."""
    library = _library_of(xs)
    px = xs[None, None, :] - start[:, 0, None, None]
    py = ys[None, :, None] - start[:, 1, None, None]
    direction = stop - start
    dx, dy = direction[:, 0, None, None], direction[:, 1, None, None]
    length = library.clip(dx * dx + dy * dy, 1e-6, None)
    along = library.clip((px * dx + py * dy) / length, 0.0, 1.0)
    across = library.sqrt((px - along * dx) ** 2 + (py - along * dy) ** 2)
    return library.clip(radius + 0.5 - across, 0.0, 1.0)
