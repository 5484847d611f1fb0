"""Hands and forearms drawn from 21 key points each, in the flat style of the part set.

Coordinates and lengths are in pixels of the picture that is drawn.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from demo.factory.figure.rest import HAND_LENGTH
from demo.factory.figure.sdf import col, coverage, paint, smoothstep, tapered

#: Side of the square around a hand in which its fingers are drawn, in fractions of the picture.
PATCH = 0.375
#: Finger radii at knuckle and tip in fractions of the hand's length: thumb, index, middle, ring, little.
FINGER_RADII = ((0.098, 0.072), (0.082, 0.066), (0.084, 0.066), (0.080, 0.064), (0.072, 0.058))
DRAW_ORDER = (4, 3, 2, 1, 0)
OUTLINE_TINT = (1.0, 0.9, 0.87)


@dataclass
class HandColors:
    """Colours (B, 3) of hands and sleeves. `bare` (B,) is 1 where the forearm wears no sleeve."""

    skin: Tensor
    outline: Tensor
    sleeve: Tensor
    sleeve_outline: Tensor
    bare: Tensor


def hand_colors(skin: Tensor, sleeve: Tensor, bare: Tensor, tint: Tensor) -> HandColors:
    """Derive the outlines' colours.

    Args:
        skin: colours (B, 3) in 0..1.
        sleeve: colours (B, 3) of the clothes.
        bare: 1 where the forearm wears no sleeve (B,).
        tint: `OUTLINE_TINT` on their device.
    """
    # Dark skin needs a stronger step for its fingers to read.
    dark = (0.50 + 0.29 * skin.mean(1, keepdim=True)) * tint
    # Darkened, and on black clothes lightened, so that an arm shows before the chest.
    lightness = sleeve.mean(1, keepdim=True)
    black = lightness < 0.22
    edge = torch.where(black, sleeve + 0.12, sleeve * 0.74)
    return HandColors(skin, skin * dark, torch.where(black, sleeve + 0.045, sleeve * 0.92), edge, bare)


def hand_length(points: Tensor, size: int) -> Tensor:
    """Length (B,) in pixels that sets the fingers' thickness. It is steady under foreshortening.

    Args:
        points: key points (B, 21, 2) in pixels.
        size: side of the picture in pixels.
    """
    knuckles = points[:, 5:18:4]  # by a slice: a list of indices would be copied to the device each time
    palm = (knuckles - points[:, :1]).norm(dim=2).amax(1)
    measured = palm / 0.51
    nominal = HAND_LENGTH * size
    length: Tensor = (0.55 * nominal + 0.45 * measured).clamp(0.6 * nominal, 1.8 * nominal)
    return length


def draw_arm(
    canvas: Tensor, px: Tensor, py: Tensor, points: Tensor, side: float, seen: Tensor, colors: HandColors
) -> Tensor:
    """Forearm and sleeve, from below the picture to the wrist.

    Args:
        canvas: pictures (B, 3, h, w).
        px: x of the pixels' centres (h, w).
        py: y of the pixels' centres (h, w).
        points: key points (B, 21, 2) in pixels.
        side: 1 for the hand on the right of the picture, -1 for the left.
        seen: opacity (B,).
        colors: of hands and sleeves.
    """
    size = canvas.shape[-1]
    length = hand_length(points, size)
    wrist = points[:, 0]
    elbow_x = wrist[:, 0] * 0.35 + size * (0.5 + side * 0.30) * 0.65
    elbow_y = torch.maximum(wrist[:, 1] + 0.13 * size, torch.full_like(elbow_x, 1.10 * size))
    dx, dy = elbow_x - wrist[:, 0], elbow_y - wrist[:, 1]
    reach = torch.hypot(dx, dy)
    dx, dy = dx / reach, dy / reach
    outline = 0.0042 * size

    def arm(start: Tensor, end: Tensor) -> Tensor:
        return tapered(
            px, py, col(wrist[:, 0]), col(wrist[:, 1]), col(elbow_x), col(elbow_y), col(start), col(end)
        )

    skin = arm(0.205 * length, 0.30 * length)
    seen_px = col(seen)
    canvas = paint(canvas, colors.outline, coverage(skin) * seen_px)
    canvas = paint(canvas, colors.skin, coverage(skin + outline) * seen_px)
    sleeve = arm(0.285 * length, 0.44 * length)
    along = (px - col(wrist[:, 0])) * col(dx) + (py - col(wrist[:, 1])) * col(dy)
    cuff = col(0.13 * length) - along
    sleeve = torch.maximum(sleeve, cuff)
    worn = seen_px * (1.0 - col(colors.bare))
    canvas = paint(canvas, colors.sleeve_outline, coverage(sleeve) * worn)
    canvas = paint(canvas, colors.sleeve, coverage(sleeve + outline) * worn)
    band = (along - col(0.27 * length)).abs() - 0.0025 * size
    return paint(canvas, colors.sleeve_outline, coverage(torch.maximum(band, sleeve)) * worn)


def _palm(bone: Callable[[int, int, float, float], Tensor]) -> Tensor:
    """Distance to the palm, from the distances to its bones."""
    palm = bone(0, 5, 0.17, 0.105)
    for knuckle in (9, 13, 17):
        palm = torch.minimum(palm, bone(0, knuckle, 0.17, 0.105 if knuckle < 17 else 0.095))
    palm = torch.minimum(palm, bone(1, 5, 0.12, 0.09))
    palm = torch.minimum(palm, bone(0, 1, 0.14, 0.11))
    return torch.minimum(palm, bone(5, 17, 0.10, 0.09))


def draw_hand(
    canvas: Tensor, px: Tensor, py: Tensor, points: Tensor, seen: Tensor, colors: HandColors, size: int
) -> Tensor:
    """Palm and fingers on a patch of each picture.

    Args:
        canvas: patches (B, 3, h, w).
        px: x of the pixels' centres (B, h, w).
        py: y of the pixels' centres (B, h, w).
        points: key points (B, 21, 2) in pixels.
        seen: opacity (B,).
        colors: of hands and sleeves.
        size: side of the whole picture in pixels.
    """
    length = hand_length(points, size)
    outline = 0.0042 * size
    xs, ys = points[..., 0], points[..., 1]

    def bone(a: int, b: int, ra: float, rb: float) -> Tensor:
        ends = (col(xs[:, a]), col(ys[:, a]), col(xs[:, b]), col(ys[:, b]))
        return tapered(px, py, *ends, col(ra * length), col(rb * length))

    palm = _palm(bone)
    seen_px = col(seen)
    # The wrist has no edge towards the forearm.
    from_wrist = torch.hypot(px - col(xs[:, 0]), py - col(ys[:, 0]))
    open_wrist = 1.0 - smoothstep(0.12, 0.26, from_wrist / col(length))
    canvas = paint(canvas, colors.outline, coverage(palm) * seen_px * (1.0 - open_wrist))
    canvas = paint(canvas, colors.skin, coverage(torch.lerp(palm + outline, palm, open_wrist)) * seen_px)
    for finger in DRAW_ORDER:
        first = 1 + 4 * finger
        root, tip = FINGER_RADII[finger]
        radii = [root, root * 0.67 + tip * 0.33, root * 0.33 + tip * 0.67, tip]
        distance = bone(first, first + 1, radii[0], radii[1])
        for joint in (1, 2):
            distance = torch.minimum(
                distance, bone(first + joint, first + joint + 1, radii[joint], radii[joint + 1])
            )
        # The outline grows out of the palm instead of ringing the knuckle.
        from_root = torch.hypot(px - col(xs[:, first]), py - col(ys[:, first])) / col(length)
        edge = smoothstep(1.1 * root, 2.4 * root, from_root)
        edge = torch.maximum(edge, smoothstep(-0.5, 1.5, palm))
        canvas = paint(canvas, colors.outline, coverage(distance) * seen_px * edge)
        canvas = paint(
            canvas, colors.skin, coverage(torch.lerp(distance, distance + outline, edge)) * seen_px
        )
    return canvas
