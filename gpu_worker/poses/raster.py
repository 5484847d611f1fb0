"""Filled discs, thick lines and bilinear resizing with the pixels of OpenCV, in numpy.

The pose encoder was trained on hands drawn by OpenCV 4 (`line` of thickness 2, `circle`, `resize`), so the
same pixels must come out. The fixed-point rules below are those of its integer rasterisation: 16 fractional
bits, 8-connected edges, rounding half up. Coordinates are (x, y). Colours are written into `canvas`
(H, W, 3), uint8.
"""

from __future__ import annotations

from functools import lru_cache
from math import hypot
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BITS = 16
_ONE = 1 << _BITS
_HALF = _ONE >> 1

Point = tuple[int, int]
Canvas = NDArray[np.uint8]


def draw_disc(canvas: Canvas, centre: Point, radius: int, colour: tuple[int, ...]) -> None:
    """Draws a filled circle. `centre` and `radius` are in pixels."""
    for y, first, last in _disc_rows(radius):
        _span(canvas, centre[1] + y, centre[0] + first, centre[0] + last, colour)


def draw_line(canvas: Canvas, start: Point, end: Point, thickness: int, colour: tuple[int, ...]) -> None:
    """Draws a line with round ends. All lengths are in pixels."""
    dx, dy = start[0] - end[0], end[1] - start[1]
    length = hypot(dx, dy)
    if length > 0:
        half = (thickness * _HALF + (thickness & 1) * _HALF) / length
        across = (round(dy * half), round(dx * half))
        x0, y0, x1, y1 = (value << _BITS for value in (*start, *end))
        corners = [
            (x0 + across[0], y0 + across[1]),
            (x0 - across[0], y0 - across[1]),
            (x1 - across[0], y1 - across[1]),
            (x1 + across[0], y1 + across[1]),
        ]
        _fill_convex(canvas, corners, colour)
    radius = (thickness * _HALF + _HALF) >> _BITS
    for centre in (start, end):
        draw_disc(canvas, centre, radius, colour)


def resize_bilinear(image: Canvas, height: int, width: int) -> Canvas:
    """The image (H, W, 3) at (height, width), bilinear.

    There is no antialiasing, pixel centres are aligned, and edges are repeated.
    """
    if image.shape[:2] == (height, width):
        return image
    # Pose maps are mostly black, so only the pixels that the drawing reaches are computed.
    rows, top = _taps(height, image.reshape(len(image), -1).max(axis=1) > 0)
    band = image[rows.low[0] : rows.high[-1] + 1] if len(rows.low) else image[:0]
    columns, left = _taps(width, band.max(axis=0, initial=0).max(axis=1) > 0)
    down = image[rows.low] * rows.low_weight[:, None, None]
    down += image[rows.high] * rows.high_weight[:, None, None]
    across = down[:, columns.low] * columns.low_weight[:, None]
    across += down[:, columns.high] * columns.high_weight[:, None]
    resized = np.zeros((height, width, 3), np.uint8)
    resized[top : top + len(rows.low), left : left + len(columns.low)] = np.floor(across + 0.5)
    return resized


class _Taps(NamedTuple):
    """For each new pixel along one axis: its two neighbours in the old picture, and their weights."""

    low: NDArray[np.int64]
    high: NDArray[np.int64]
    low_weight: NDArray[np.float32]
    high_weight: NDArray[np.float32]


def _taps(after: int, lit: NDArray[np.bool_]) -> tuple[_Taps, int]:
    """Taps of the `after` new pixels that any lit old one reaches, and the number of the first of these."""
    before = len(lit)
    position = np.clip((np.arange(after) + 0.5) * (before / after) - 0.5, 0, before - 1)
    low = np.floor(position).astype(np.int64)
    high = np.minimum(low + 1, before - 1)
    weight = (np.round((position - low) * 2048) / 2048).astype(np.float32)  # OpenCV's weights have 11 bits
    reached = np.flatnonzero(lit[low] | lit[high])
    kept = slice(reached[0], reached[-1] + 1) if len(reached) else slice(0, 0)
    return _Taps(low[kept], high[kept], 1 - weight[kept], weight[kept]), kept.start


@lru_cache(maxsize=8)
def _disc_rows(radius: int) -> tuple[tuple[int, int, int], ...]:
    """Rows of a midpoint circle: (y, first x, last x) around its centre."""
    half_widths: dict[int, int] = {}
    x, y, error, step_up, step_in = radius, 0, 0, 1, 2 * radius - 1
    while x >= y:
        for row, half in ((y, x), (x, y)):
            half_widths[row] = max(half, half_widths.get(row, 0))
        y += 1
        error += step_up
        step_up += 2
        if error > 0:
            error -= step_in
            x -= 1
            step_in -= 2
    return tuple(
        (sign * row, -half, half) for row, half in half_widths.items() for sign in ((1, -1) if row else (1,))
    )


def _span(canvas: Canvas, y: int, first: int, last: int, colour: tuple[int, ...]) -> None:
    if 0 <= y < canvas.shape[0] and last >= 0 and first < canvas.shape[1]:
        canvas[y, max(first, 0) : last + 1] = colour


def _fill_convex(canvas: Canvas, corners: list[Point], colour: tuple[int, ...]) -> None:
    """A convex polygon with fixed-point corners: its edges, then the rows between them."""
    for index, corner in enumerate(corners):
        _edge_line(canvas, corners[index - 1], corner, colour)
    top = min(range(len(corners)), key=lambda i: corners[i][1])
    y = (corners[top][1] + _HALF) >> _BITS
    sides = (_Side(corners, top, 1, y), _Side(corners, top, -1, y))
    while all(side.reach(y) for side in sides):
        first, last = sorted(side.x for side in sides)
        _span(canvas, y, (first + _HALF) >> _BITS, (last + _HALF) >> _BITS, colour)
        for side in sides:
            side.x += side.slope
        y += 1


class _Side:
    """One side of a polygon, walked downwards row by row from corner `start`."""

    def __init__(self, corners: list[Point], start: int, step: int, y: int) -> None:
        self.corners, self.index, self.step = corners, start, step
        self.until, self.x, self.slope = y, 0, 0

    def reach(self, y: int) -> bool:
        """Moves to the edge that crosses row y. False: the polygon ends above it."""
        if y < self.until:
            return True
        for _ in self.corners:
            following = (self.index + self.step) % len(self.corners)
            x, x_end = self.corners[self.index][0], self.corners[following][0]
            self.until = (self.corners[following][1] + _HALF) >> _BITS
            self.index = following
            if self.until > y:
                rows = self.until - y
                self.x, self.slope = x, _quotient((x_end - x) * 2 + rows, 2 * rows)
                return True
        return False


def _edge_line(canvas: Canvas, start: Point, end: Point, colour: tuple[int, ...]) -> None:
    """An 8-connected line between fixed-point points."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    steep = abs(dx) <= abs(dy)
    # u runs along the longer side, and v across it.
    (u0, v0), (u1, v1) = ((p[::-1] if steep else p) for p in (start, end))
    if u1 < u0:
        (u0, v0), (u1, v1) = (u1, v1), (u0, v0)
    slope = _quotient((v1 - v0) << _BITS, (u1 - u0) | 1)
    count = ((u1 - u0) >> _BITS) + 1
    u = ((u0 + _HALF) >> _BITS) + np.arange(count)
    v = (v0 + _HALF + slope * np.arange(count)) >> _BITS
    u, v = np.append(u, (u1 + _HALF) >> _BITS), np.append(v, (v1 + _HALF) >> _BITS)
    x, y = (v, u) if steep else (u, v)
    inside = (x >= 0) & (x < canvas.shape[1]) & (y >= 0) & (y < canvas.shape[0])
    canvas[y[inside], x[inside]] = colour


def _quotient(a: int, b: int) -> int:
    """Integer division that rounds towards zero, as in C."""
    return abs(a) // abs(b) * (1 if (a >= 0) == (b > 0) else -1)
