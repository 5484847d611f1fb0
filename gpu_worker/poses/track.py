"""Pose tracks: the hands' key points in each frame, and the maps drawn of them for the pose encoder.

A track is an `.npz` without pickles. It has the keys

- `hands`: (N, H, 21, 2), as fractions of width and height
- `hands_score`: (N, H, 21)
- `fps`: a whole number
- `style`: `official` (the default) or `sdf`

The official style is drawn as the official code does (`draw_pose_select_v2`). It has the hands of everybody
in the picture, H ≥ 2. Points of hands that a frame does not have are not finite. It may have `draw_params`
(N, 6) and `canvas`, as `scripts/convert_pose.py` makes them of DWPose files. The style `sdf` is drawn by
`gpu_worker.poses.sdf`, with `marks` (N, M, 2), `marks_edges`, `marks_color` and `marks_radius`.
"""

from __future__ import annotations

import colorsys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_worker.poses.raster import draw_disc, draw_line, resize_bilinear
from gpu_worker.poses.sdf import draw_pose_maps
from protocol.model.assets import HAND_BONES
from protocol.model.file_damage import damage_error

#: The shorter side of the canvas on which the official code draws hands, for pictures of any size.
REFERENCE_SIDE = 800

#: The picture's side to which the `draw_pose_params` of the official pose files refer.
OFFICIAL_SIDE = 768

#: Most bytes of a file's arrays.
MAX_BYTES = 256 * 2**20
ArrayShape = tuple[int | None, ...]


class PoseFileError(ValueError):
    """A pose file cannot be used. The message names the file and the key."""


def draw_hands(
    hands: NDArray[np.floating], scores: NDArray[np.floating], height: int, width: int
) -> NDArray[np.uint8]:
    """One official pose map, (height, width, 3) uint8 RGB.

    Bones are two pixels wide, in 20 hues. Joints are red discs of radius 4. Both are darker where the
    detector was less sure. They are drawn with the shorter side at 800 pixels, and then resized. A point at
    the border or not finite is left out.

    Args:
        hands: key points (H, 21, 2), as fractions of width and height.
        scores: of the detector, (H, 21) in 0..1.
        height: in pixels.
        width: in pixels.
    """
    scale = REFERENCE_SIDE / min(height, width)
    canvas = np.zeros((int(height * scale), int(width * scale), 3), np.uint8)
    for points, score in zip(hands, scores, strict=True):
        visible = np.isfinite(points).all(axis=-1) & np.isfinite(score)
        # Points far outside stay outside, and the arithmetic stays in range.
        finite = np.where(visible[:, None], np.clip(points, -1, 2), 0)
        pixels = [(int(x * canvas.shape[1]), int(y * canvas.shape[0])) for x, y in finite]
        visible &= np.array([x > 0 and y > 0 for x, y in pixels])
        confidence = np.where(visible, score, 0)
        for (a, b), hue in zip(HAND_BONES, _hues(), strict=True):
            if visible[a] and visible[b]:
                level = int(confidence[a] * confidence[b] * 255)
                draw_line(canvas, pixels[a], pixels[b], 2, tuple(_byte(part * level) for part in hue))
        for pixel, seen, value in zip(pixels, visible, confidence, strict=True):
            if seen:
                draw_disc(canvas, pixel, 4, (_byte(int(value * 255)), 0, 0))
    return resize_bilinear(canvas, height, width)


@lru_cache(maxsize=1)
def _hues() -> tuple[tuple[float, ...], ...]:
    # Reversed, because the official code takes its RGB hues for OpenCV's BGR.
    count = len(HAND_BONES)
    return tuple(tuple(reversed(colorsys.hsv_to_rgb(i / count, 1.0, 1.0))) for i in range(count))


def _byte(value: float) -> int:
    return min(max(round(value), 0), 255)


@dataclass(frozen=True)
class Marks:
    """Points that are drawn after the hands, and the capsules between them.

    Attributes:
        points: (N, M, 2), as fractions of width and height.
        edges: (E, 2), numbers of the points that each capsule joins.
        colours: (E, 3) in 0..1.
        radii: (E,), as fractions of the height.
    """

    points: NDArray[np.float32]
    edges: NDArray[np.int64]
    colours: NDArray[np.float32]
    radii: NDArray[np.float32]


@dataclass(frozen=True)
class PoseTrack:
    """A loop of poses.

    Attributes:
        hands: key points (N, H, 21, 2), as fractions of width and height.
        scores: of the detector, (N, H, 21).
        fps: frames per second.
        size: (height, width) of the maps drawn, in pixels.
        params: (N, 6), where the video's frame lies in the canvas, or None if it fills it.
        canvas: side to which `params` refer, in pixels.
        marks: of the style `sdf`, or None for the official style.
    """

    hands: NDArray[np.float32]
    scores: NDArray[np.float32]
    fps: int
    size: tuple[int, int]
    params: NDArray[np.int64] | None = None
    canvas: int = OFFICIAL_SIDE
    marks: Marks | None = None

    def __len__(self) -> int:
        return len(self.hands)

    @classmethod
    def load(cls, path: Path, size: tuple[int, int]) -> PoseTrack:
        """Reads a track that is to be drawn at `size` = (height, width).

        Raises:
            PoseFileError: the file cannot be used.
        """
        arrays = _Arrays(path)
        style = str(arrays.take("style", "U", ())) if "style" in arrays else "official"
        per_frame = None if style == "official" else 2
        hands = arrays.take("hands", "f", (None, per_frame, 21, 2)).astype(np.float32)
        count, per_frame = hands.shape[:2]
        if count < 1:
            raise PoseFileError(f"{path}: hands has no frames")
        scores = arrays.take("hands_score", "f", (count, per_frame, 21)).astype(np.float32)
        fps = int(arrays.take("fps", "iu", ()))
        if not 1 <= fps <= 240:
            raise PoseFileError(f"{path}: fps is {fps}, it must be 1 to 240")
        if style == "sdf":
            return cls(hands, scores, fps, size, marks=_read_marks(arrays, count))
        if style != "official":
            raise PoseFileError(f"{path}: style {style!r} is unknown, there are 'official' and 'sdf'")
        params = arrays.take("draw_params", "iu", (count, 6)) if "draw_params" in arrays else None
        canvas = int(arrays.take("canvas", "iu", ())) if "canvas" in arrays else OFFICIAL_SIDE
        if params is not None:
            _check_params(path, params, canvas)
        return cls(hands, scores, fps, size, params=params, canvas=canvas)

    def draw(self, indices: Sequence[int]) -> NDArray[np.float32]:
        """Pose maps of the frames at `indices`, (n, 3, height, width) in 0..1."""
        if self.marks is None:
            drawn = np.stack([self._draw_official(index) for index in indices])
            maps: NDArray[np.float32] = drawn.transpose(0, 3, 1, 2).astype(np.float32)
            maps /= 255
            return maps
        chosen = list(indices)
        return draw_pose_maps(
            self.hands[chosen],
            self.scores[chosen],
            self.marks.points[chosen],
            self.marks.edges,
            self.marks.colours,
            self.marks.radii,
            self.size,
        )

    def _draw_official(self, index: int) -> NDArray[np.uint8]:
        height, width = self.size
        if self.params is None:
            return draw_hands(self.hands[index], self.scores[index], height, width)
        # The parameters give the size of the video frame and where it lies in a square picture.
        scale = np.array([height, width, height, height, width, width]) / self.canvas
        frame_h, frame_w, top, bottom, left, right = np.round(self.params[index] * scale).astype(int)
        drawn = draw_hands(self.hands[index], self.scores[index], frame_h, frame_w)
        picture = np.zeros((height, width, 3), np.uint8)
        # Rounding may make the two differ by one row or column.
        rows, columns = min(bottom - top, frame_h), min(right - left, frame_w)
        picture[top : top + rows, left : left + columns] = drawn[:rows, :columns]
        return picture


class _Arrays:
    """The arrays of an `.npz`, each checked when taken."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(item.file_size for item in archive.infolist())
            if size > MAX_BYTES:
                raise PoseFileError(f"{path}: holds {size >> 20} MiB, more than {MAX_BYTES >> 20} MiB")
            with np.load(path, allow_pickle=False) as data:
                self._arrays = {key: data[key] for key in data.files}
        except FileNotFoundError:
            raise PoseFileError(f"{path}: no such pose file") from None
        except PoseFileError:
            raise
        except Exception as error:  # for damaged files, zip and npy readers raise errors of any kind
            advice = "DWPose folders are converted by scripts/convert_pose.py"
            raise PoseFileError(
                damage_error(path) or f"{path}: not a pose file ({error}); {advice}"
            ) from error

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def take(self, key: str, kinds: str, shape: ArrayShape) -> NDArray[Any]:
        array: NDArray[Any] | None = self._arrays.get(key)
        if array is None:
            raise PoseFileError(f"{self.path}: {key} is missing")
        fits = array.ndim == len(shape) and all(
            n in (None, m) for n, m in zip(shape, array.shape, strict=True)
        )
        if array.dtype.kind not in kinds or not fits:
            raise PoseFileError(
                f"{self.path}: {key} is {array.dtype} {array.shape}, it must have shape {shape}"
            )
        return array


def _read_marks(arrays: _Arrays, frames: int) -> Marks:
    points = arrays.take("marks", "f", (frames, None, 2))
    edges = arrays.take("marks_edges", "iu", (None, 2))
    count = len(edges)
    if count and not (edges.min() >= 0 and edges.max() < points.shape[1]):
        raise PoseFileError(f"{arrays.path}: marks_edges names a mark that marks does not have")
    return Marks(
        points=points.astype(np.float32),
        edges=edges.astype(np.int64),
        colours=arrays.take("marks_color", "f", (count, 3)).astype(np.float32),
        radii=arrays.take("marks_radius", "f", (count,)).astype(np.float32),
    )


def _check_params(path: Path, params: NDArray[np.int64], canvas: int) -> None:
    frame_h, frame_w, top, bottom, left, right = params.T
    inside = (params >= 0).all() and (params <= canvas).all() and (frame_h > 0).all() and (frame_w > 0).all()
    if not inside or (bottom <= top).any() or (right <= left).any():
        raise PoseFileError(f"{path}: draw_params place a frame outside the {canvas}×{canvas} picture")
