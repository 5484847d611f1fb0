"""Fewer frames of a clip: every second, third, … of them, so that a slow machine still makes each clip.

The frames that are left have the times, the audio tokens and the poses that they had among the others, since
all three depend on a frame's time alone. So a session's rate may change from clip to clip without a seam.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from protocol.wire.messages import Clip


def thinned_frames(frames: int, fps: int, most_fps: int) -> int:
    """Frames of a clip that are left when at most `most_fps` a second are wanted.

    A clip whose numbers have no common divisor that is large enough keeps more.

    Args:
        frames: of the clip.
        fps: of the clip.
        most_fps: frames a second that are wanted at most.
    """
    return frames // _step(frames, fps, most_fps)


def thin_clip(clip: Clip, most_fps: int) -> Clip:
    """The clip with every n-th frame, so that it has at most `most_fps` a second."""
    step = _step(len(clip.tokens), clip.fps, most_fps)
    if step == 1:
        return clip
    return replace(clip, fps=clip.fps // step, tokens=np.ascontiguousarray(clip.tokens[::step]))


def _step(frames: int, fps: int, most_fps: int) -> int:
    steps = [n for n in range(1, frames + 1) if frames % n == 0 and fps % n == 0]
    return next((n for n in steps if fps <= n * most_fps), steps[-1])
