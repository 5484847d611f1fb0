"""Hands at rest: the pose of every reference picture and of frame 0 of every pose track.

Key points follow the OpenPose/DWPose hand layout: 0 wrist, 1-4 thumb, 5-8 index, 9-12 middle, 13-16 ring,
17-20 little finger, each from knuckle to tip. As in DWPose, hand 0 is the person's left hand (on the right
of the picture) and hand 1 the person's right hand (on the left of the picture). Coordinates are fractions of
the picture, x to the right and y downwards.
"""

from __future__ import annotations

import math

import numpy as np

#: A relaxed hand of length 1 with its wrist at the origin, fingers up (negative y), thumb towards positive x.
HAND_TEMPLATE = np.array(
    [
        [0.00, 0.00],
        [0.15, -0.12], [0.27, -0.26], [0.35, -0.39], [0.40, -0.50],
        [0.14, -0.48], [0.17, -0.69], [0.175, -0.82], [0.175, -0.93],
        [0.03, -0.51], [0.035, -0.75], [0.035, -0.89], [0.03, -1.00],
        [-0.08, -0.48], [-0.10, -0.70], [-0.11, -0.83], [-0.12, -0.94],
        [-0.18, -0.42], [-0.22, -0.59], [-0.24, -0.69], [-0.255, -0.78],
    ],
    dtype=np.float32,
)  # fmt: skip

#: Length from wrist to the middle finger's tip of a fully stretched hand, in fractions of the picture.
HAND_LENGTH = 0.165

REST_WRIST = (0.655, 0.945)
REST_ANGLE = math.radians(52.0)


def place_hand(
    wrist: tuple[float, float],
    angle: float,
    length: float = HAND_LENGTH,
    *,
    left: bool,
    template: np.ndarray = HAND_TEMPLATE,
) -> np.ndarray:
    """Put a hand template into the picture.

    Args:
        wrist: position of the wrist, in fractions of the picture.
        angle: by how much the fingers lean inwards from upright, in radians.
        length: hand length in fractions of the picture.
        left: the person's left hand (right side of the picture, thumb outwards when upright), or its mirror.
        template: (21, 2) key points in the layout of `HAND_TEMPLATE`.

    Returns:
        (21, 2) float32 key points.
    """
    cos, sin = math.cos(angle), math.sin(angle)
    # Upright fingers (0, -1) become (-sin, -cos): inwards for a hand on the right of the picture.
    rotation = np.array([[cos, -sin], [sin, cos]], dtype=np.float32)
    points = template @ rotation * length
    if not left:
        points = points * np.array([-1.0, 1.0], dtype=np.float32)
    return (points + np.asarray(wrist, dtype=np.float32)).astype(np.float32)


def rest_hands() -> np.ndarray:
    """Both hands at rest, float32 (2, 21, 2): before the lower chest, fingers up and inwards, thumbs up."""
    x, y = REST_WRIST
    return np.stack(
        [
            place_hand((x, y), REST_ANGLE, left=True),
            place_hand((1.0 - x, y), REST_ANGLE, left=False),
        ]
    )
