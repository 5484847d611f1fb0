"""Which Whisper features each frame attends to, as the official EchoMimic-v2 code picks them.

Whisper's encoder gives 50 positions a second with five hidden states each. Frame i is centred on the position
at its time and sees `margin` frames' worth of positions (two at 25 fps) on either side.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

POSITIONS_PER_SECOND = 50
LAYERS = 5


def tokens_per_frame(margin: int = 2) -> int:
    """Audio tokens of one frame: 50 at the official margin of 2."""
    return (2 * margin + 1) * 2 * LAYERS


def audio_token_positions(
    frames: int, fps: int, length: int, *, margin: int = 2, offset: int = 0
) -> NDArray[np.int64]:
    """Feature positions of each frame, (frames, (2·margin + 1)·2).

    frames, fps: frame i is at i/fps seconds after the first. length: positions there are; an index outside
    is clamped to the ends. offset: position of the first frame, where history lies before it.
    Raises ValueError for a count that is not positive.
    """
    for name, value in (("frames", frames), ("fps", fps), ("length", length)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    centres = offset + np.arange(frames, dtype=np.int64) * POSITIONS_PER_SECOND // fps
    around = np.arange(-2 * margin, 2 * (margin + 1), dtype=np.int64)
    positions: NDArray[np.int64] = np.clip(centres[:, None] + around, 0, length - 1)
    return positions
