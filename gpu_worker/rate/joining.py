"""Thinned clips that wait, made together: longer clips for a machine that is behind.

A call of the denoiser costs as much as some frames, whatever their number. Clips that lost frames to a lower
rate are small, so that cost decides. Those of a session that wait are therefore joined, up to the frames of a
whole clip. A whole clip gains nothing: OpenVINO's network for its shape is faster than the one for any length
(docs/lab/cpu-engines.md).

Only clips that are there are joined, so nothing waits for others, and a machine with time makes each alone.
Numbers, tokens and positions stay those of the single clips.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gpu_worker.rate.thinning import thinned_frames
from protocol.wire.messages import Array16, Clip

#: Most seconds of speech in one call. The first of the joined clips waits until the last one is made.
MOST_SECONDS = 0.5


def most_joined(frames: int, fps: int, most_fps: int) -> int:
    """Most clips that are made together, 1 where they have all their frames.

    Args:
        frames: of each clip, before it is thinned.
        fps: of each clip, before it is thinned.
        most_fps: frames a second that are made at most.
    """
    made = thinned_frames(frames, fps, most_fps)
    return max(1, min(frames // made, int(MOST_SECONDS * fps / frames)))


def served_lengths(frames: int, fps: int, rates: Sequence[int]) -> list[int]:
    """Frames of all clips that are made of a session's, the shortest first.

    Args:
        frames: of each of the session's clips.
        fps: of each of them.
        rates: frames a second that are made at most, at one time or another.
    """
    made = set()
    for rate in rates:
        thinned = thinned_frames(frames, fps, rate)
        made |= {thinned * clips for clips in range(1, most_joined(frames, fps, rate) + 1)}
    return sorted(made)


def follows(before: Clip, clip: Clip) -> bool:
    """Whether one clip goes on where the other ends, and both are made alike."""
    return (
        clip.seq == before.seq + 1
        and (clip.session, clip.epoch) == (before.session, before.epoch)
        and (clip.avatar, clip.pose, clip.codec) == (before.avatar, before.pose, before.codec)
        and (clip.fps, clip.tokens.shape) == (before.fps, before.tokens.shape)
        and not (clip.silent or before.silent)
    )


def join_clips(clips: Sequence[Clip]) -> Clip:
    """One clip with the frames of all. It has the number of the first."""
    return (
        clips[0] if len(clips) == 1 else replace(clips[0], tokens=np.concatenate([c.tokens for c in clips]))
    )


def split_latents(latents: Array16, clips: Sequence[Clip]) -> list[Array16]:
    """The latents (frames, C, h, w) of joined clips, clip by clip."""
    return np.split(latents, np.cumsum([len(clip.tokens) for clip in clips])[:-1])
