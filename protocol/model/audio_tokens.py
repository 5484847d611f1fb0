"""The Whisper features that each frame attends to.

Whisper's encoder gives 50 positions a second with five hidden states each. A frame is centred on the position
at its time. It sees `margin` frames on either side, two positions each, as frames have at 25 fps.
Source: the official EchoMimic-v2 code (antgroup/echomimic_v2).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Positions that Whisper's encoder gives for a second of sound.
POSITIONS_PER_SECOND = 50
#: Hidden states of a position: the input embedding and the output of each of Whisper tiny's four blocks.
LAYERS = 5


def tokens_per_frame(margin: int = 2) -> int:
    """Audio tokens of one frame: 50 at the official margin of 2."""
    return (2 * margin + 1) * 2 * LAYERS


def audio_token_positions(
    frames: int, fps: int, length: int, *, margin: int = 2, offset: int = 0
) -> NDArray[np.int64]:
    """Feature positions of each frame, int64 (frames, (2·margin + 1)·2).

    Args:
        frames: number of frames.
        fps: frames a second. Frame i is i/fps seconds after the first.
        length: number of positions. An index outside is clamped to the nearest end.
        margin: frames of context on either side of a frame.
        offset: position of the first frame, where history lies before it.

    Raises:
        ValueError: frames, fps or length is not positive.
    """
    for name, value in (("frames", frames), ("fps", fps), ("length", length)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    centres = offset + np.arange(frames, dtype=np.int64) * POSITIONS_PER_SECOND // fps
    around = np.arange(-2 * margin, 2 * (margin + 1), dtype=np.int64)
    positions: NDArray[np.int64] = np.clip(centres[:, None] + around, 0, length - 1)
    return positions
