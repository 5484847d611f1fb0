"""Each frame's choice from the features of its clip's window."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

from audio_worker.mel import POSITIONS
from audio_worker.ring import WINDOW
from audio_worker.sessions import DueClip
from protocol.model.audio_tokens import audio_token_positions
from protocol.wire.clock import pts_of_clip
from protocol.wire.messages import Array16


def frame_tokens(clip: DueClip, features: NDArray[np.float32], margin: int) -> Array16:
    """The tokens of a clip: for each position that a frame attends to, its hidden states.

    Args:
        clip: a clip.
        features: (75, layers, width) of its window.
        margin: video frames of context on each side of a frame.

    Returns:
        (frames, (2·margin+1)·2·layers, width), float16.
    """
    chosen = features[clip_positions(clip.clip_frames, clip.fps, margin, clip.ahead)]
    return chosen.reshape(len(chosen), -1, features.shape[-1]).astype(np.float16)


@functools.lru_cache(maxsize=16)  # one for each kind of clip that the sessions ask for
def clip_positions(clip_frames: int, fps: int, margin: int, ahead: int = 0) -> NDArray[np.int64]:
    """Feature positions that each frame of a clip attends to, (frames, (2·margin+1)·2).

    The clip is the end of the 1.5 s window but for `ahead` samples, so its first frame is not at the window's
    first position.
    """
    first = (WINDOW - ahead - pts_of_clip(1, fps, clip_frames)) * POSITIONS // WINDOW
    return audio_token_positions(clip_frames, fps, POSITIONS, margin=margin, offset=first)
