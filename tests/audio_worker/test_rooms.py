"""A room's even noise is judged once a second, and everything louder at once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from audio_worker.rooms import Rooms
from audio_worker.sessions import DueClip
from audio_worker.voice import Judgement
from demo.factory.evaluate.noises import noise
from protocol.wire.messages import Samples
from tests.audio_worker.test_features import due

CLIP = 16000 // 6


class CountingDetector:
    """Takes every clip for silent but those that are louder than a room at -40 dBFS."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def judge(self, clip: DueClip) -> Judgement:
        self.asked.append(clip.seq)
        loud = np.abs(clip.samples) >= 0.1
        return Judgement(not loud[-CLIP - 2400 :].any(), bool(loud[-2400:].any()))


def clips_of(sound: Samples, session: str = "one") -> list[DueClip]:
    """Clips of 4 frames, each with the 1.5 s that end with it."""
    heard = np.concatenate([np.zeros(24000, np.float32), sound])
    ends = range(24000 + CLIP, len(heard), CLIP)
    return [
        replace(due(0), session=session, seq=seq, fps=24, clip_frames=4, samples=heard[end - 24000 : end])
        for seq, end in enumerate(ends)
    ]


def judged(sound: Samples) -> tuple[list[bool], list[int]]:
    detector: Any = CountingDetector()
    rooms = Rooms(detector)
    return [rooms.is_silent(clip) for clip in clips_of(sound)], detector.asked


@pytest.mark.parametrize("level", [-50.0, -40.0])
def test_an_even_room_is_judged_once_a_second(level: float) -> None:
    room = np.random.default_rng(0).standard_normal(10 * 16000).astype(np.float32)
    silent, asked = judged(room * np.float32(10 ** (level / 20)))
    assert all(silent)
    assert len(asked) <= 15 and max(np.diff(asked)) <= 7


def test_a_voice_is_judged_at_once_and_until_it_is_over() -> None:
    rng = np.random.default_rng(1)
    sound = 0.003 * rng.standard_normal(6 * 16000).astype(np.float32)
    first, last = 3 * 16000 + 700, 4 * 16000
    sound[first:last] += 0.2 * np.sin(np.arange(last - first) * 0.1).astype(np.float32)
    silent, asked = judged(sound)
    spoken = range(first // CLIP, last // CLIP)
    assert not any(silent[seq] for seq in spoken)
    # Every second one is known to be near a voice.
    assert spoken[0] in asked and all({seq, seq + 1} & set(asked) for seq in spoken)
    assert silent == [CountingDetector().judge(clip).silent for clip in clips_of(sound)]


def test_a_soft_voice_is_judged_too() -> None:
    rng = np.random.default_rng(2)
    sound = 0.003 * rng.standard_normal(5 * 16000).astype(np.float32)
    first = 3 * 16000
    sound[first:] += 0.004 * np.sin(np.arange(len(sound) - first) * 0.1).astype(np.float32)  # as loud as it
    _, asked = judged(sound)
    assert first // CLIP in asked


@pytest.mark.parametrize("kind", ["typing", "music"])
def test_uneven_noises_are_judged_nearly_always(kind: str) -> None:
    sound = noise(kind, 6.0, -40.0, 1)
    silent, asked = judged(sound)
    assert len(asked) >= 0.5 * len(silent)


def test_sessions_do_not_share_a_room() -> None:
    detector: Any = CountingDetector()
    rooms = Rooms(detector)
    room = 0.003 * np.random.default_rng(0).standard_normal(16000).astype(np.float32)
    for one, two in zip(clips_of(room), clips_of(room * np.float32(1.1), "two"), strict=True):
        rooms.is_silent(one)
        rooms.is_silent(two)
    assert detector.asked[:2] == [0, 0]


def test_a_quiet_clip_needs_no_detector() -> None:
    room = 0.003 * np.random.default_rng(3).standard_normal(2 * 16000).astype(np.float32)
    detector: Any = CountingDetector()
    rooms = Rooms(detector)
    clips = clips_of(room)[3:]
    assert not rooms.is_even(clips[0])  # nobody has looked at the room yet
    assert rooms.is_silent(clips[0]) and rooms.is_even(clips[1])
    loud = replace(clips[1], samples=clips[1].samples * np.float32(3))
    assert not rooms.is_even(loud) and detector.asked == [3]
