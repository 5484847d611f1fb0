"""Clips with fewer frames: the frames that are left keep their times, tokens and poses."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.rate.thinning import thin_clip, thinned_frames
from protocol.model.audio_tokens import audio_token_positions
from protocol.wire.clock import first_frame_from, frames_of_clip, pts_of_clip, pts_of_frame
from protocol.wire.messages import Clip

rates = st.sampled_from([24, 12, 8, 25, 10, 7])


def clip_at(seq: int, fps: int, clip_frames: int = 12) -> Clip:
    frames = frames_of_clip(fps, clip_frames)
    tokens = np.zeros((frames, 1, 384), np.float16)
    tokens[:, 0, 0] = np.arange(frames)
    return Clip("s", 0, seq, pts_of_clip(seq, fps, frames), fps, "a", "p", tokens)


@given(st.integers(0, 10_000), rates, st.integers(1, 24), st.integers(1, 30))
def test_frames_keep_their_places(seq: int, fps: int, clip_frames: int, most: int) -> None:
    clip = clip_at(seq, fps, clip_frames)
    thin = thin_clip(clip, most)
    frames = len(thin.tokens)
    assert frames == thinned_frames(len(clip.tokens), fps, most)
    assert frames * fps == len(clip.tokens) * thin.fps  # it lasts as long
    step = fps // thin.fps
    assert list(thin.tokens[:, 0, 0]) == list(range(0, len(clip.tokens), step))
    first, first_of_all = first_frame_from(thin.pts, thin.fps), first_frame_from(clip.pts, fps)
    for index in range(frames):
        assert pts_of_frame(first + index, thin.fps) == pts_of_frame(first_of_all + index * step, fps)
    full = audio_token_positions(len(clip.tokens), fps, 50)
    assert np.array_equal(audio_token_positions(frames, thin.fps, 50), full[::step])


def test_the_rates_of_half_a_second() -> None:
    clip = clip_at(3, 24)
    assert [(most, len(thin_clip(clip, most).tokens)) for most in (30, 24, 23, 12, 8, 6, 4, 3, 1)] == [
        (30, 12), (24, 12), (23, 6), (12, 6), (8, 4), (6, 3), (4, 2), (3, 1), (1, 1),
    ]  # fmt: skip
    assert thin_clip(clip, 24) is clip
