"""Marks on the pose map that show breathing, head, eyelids, gaze and brows.

The model can follow a motion only if it sees it. So every motion that is not speech is drawn on the pose map.
Movements of a pixel or two are exaggerated there, because the pose encoder reduces the map by eight.
"""

import numpy as np
from numpy.typing import NDArray

LIFE_COLUMNS = ("eyelid_closed", "breath", "head_dx", "head_dy", "head_roll", "gaze_x", "gaze_y", "brow")
HEAD_GAIN = 6.0
HEAD_CENTRE, HEAD_HALF_LENGTH = (0.5, 0.34), 0.13
BREATH_GAIN, SHOULDER_Y = 0.035, 0.50
EYE_X, EYE_Y, EYE_GAP = (0.38, 0.62), 0.36, 0.11
GAZE_CENTRE, GAZE_GAIN = (0.5, 0.10), 0.05
BROW_Y, BROW_GAIN = 0.22, 0.05

# Ends of each capsule, colour (RGB) and radius (fraction of the image height), in drawing order.
_CAPSULES = (
    ((0, 1), (0.20, 0.60, 1.00), 0.012),  # left shoulder
    ((2, 3), (0.20, 0.60, 1.00), 0.012),  # right shoulder
    ((4, 5), (1.00, 0.55, 0.10), 0.012),  # head axis, chin to crown
    ((4, 4), (1.00, 1.00, 0.20), 0.018),  # chin, so that up and down differ
    ((6, 7), (0.20, 1.00, 0.40), 0.012),  # left eye, lid to lid
    ((8, 9), (0.20, 1.00, 0.40), 0.012),  # right eye
    ((10, 10), (1.00, 0.20, 0.80), 0.018),  # gaze
    ((11, 12), (0.70, 0.40, 1.00), 0.012),  # brows
)
MARKS_EDGES: NDArray[np.int64] = np.array([edge for edge, _, _ in _CAPSULES], dtype=np.int64)
MARKS_COLOR: NDArray[np.float32] = np.array([colour for _, colour, _ in _CAPSULES], dtype=np.float32)
MARKS_RADIUS: NDArray[np.float32] = np.array([radius for _, _, radius in _CAPSULES], dtype=np.float32)
MARKS_COUNT = 13


def life_to_marks(life: NDArray[np.float32]) -> NDArray[np.float32]:
    """Points of the marks, (..., 13, 2) in fractions of the picture.

    Args:
        life: signs of life (..., 8) in the order of `LIFE_COLUMNS`.

    Raises:
        ValueError: `life` has another number of columns.
    """
    life = np.asarray(life, dtype=np.float32)
    if life.shape[-1] != len(LIFE_COLUMNS):
        raise ValueError(
            f"life has {life.shape[-1]} columns; expected {len(LIFE_COLUMNS)}: {', '.join(LIFE_COLUMNS)}"
        )
    closed, breath, head_dx, head_dy, roll, gaze_x, gaze_y, brow = np.moveaxis(life, -1, 0)
    marks = np.empty((*life.shape[:-1], MARKS_COUNT, 2), dtype=np.float32)
    # Breathing in lifts the shoulders, so up (smaller y) for positive breath.
    marks[..., 0:4, 0] = (0.03, 0.11, 0.89, 0.97)
    marks[..., 0:4, 1] = (SHOULDER_Y - BREATH_GAIN * breath)[..., None]
    centre_x = HEAD_CENTRE[0] + HEAD_GAIN * head_dx
    centre_y = HEAD_CENTRE[1] + HEAD_GAIN * head_dy
    # Positive roll turns clockwise on the screen (y down): the crown goes right, the chin left.
    across, along = np.sin(HEAD_GAIN * roll) * HEAD_HALF_LENGTH, np.cos(HEAD_GAIN * roll) * HEAD_HALF_LENGTH
    marks[..., 4, 0], marks[..., 4, 1] = centre_x - across, centre_y + along
    marks[..., 5, 0], marks[..., 5, 1] = centre_x + across, centre_y - along
    half_gap = 0.5 * EYE_GAP * (1.0 - closed)
    for eye, x in enumerate(EYE_X):
        marks[..., 6 + 2 * eye, 0] = marks[..., 7 + 2 * eye, 0] = x
        marks[..., 6 + 2 * eye, 1], marks[..., 7 + 2 * eye, 1] = EYE_Y - half_gap, EYE_Y + half_gap
    marks[..., 10, 0], marks[..., 10, 1] = (
        GAZE_CENTRE[0] + GAZE_GAIN * gaze_x,
        GAZE_CENTRE[1] + GAZE_GAIN * gaze_y,
    )
    marks[..., 11:13, 0] = (0.10, 0.22)
    marks[..., 11:13, 1] = (BROW_Y - BROW_GAIN * brow)[..., None]
    return marks
