"""Pictures and sound in turn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from echomimic_live_client.inbox import Frame, Sound
from echomimic_live_client.moments import Moment, MomentCutter

RATE, CLIP, PICTURES = 24000, 12000, 12


def clip(seq: int, epoch: int = 0, has_frames: bool = True) -> tuple[Sound, list[Frame]]:
    """The sound of half a second, whose samples count on, and its pictures."""
    first = seq * CLIP
    samples = np.arange(first, first + CLIP, dtype=np.float32)
    sound = Sound(samples, RATE, epoch, seq, seq * 8000, seq / 2, first, has_frames)
    frames = [
        Frame(b"", epoch, seq, i, PICTURES, 0, seq / 2 + i / 24, first + i * 1000) for i in range(PICTURES)
    ]
    return sound, frames


def cut(items: list[Frame | Sound], delay: float = 0.0) -> list[Moment]:
    cutter = MomentCutter(delay)
    return [moment for item in items for moment in cutter.take(item)] + cutter.end()


@pytest.mark.parametrize("delay", [0.0, 0.01, 1 / 24, 0.08, 0.3])
def test_every_sample_and_picture_comes_once_and_each_picture_at_its_time(delay: float) -> None:
    items: list[Frame | Sound] = []
    for seq in range(4):
        sound, frames = clip(seq)
        items += [sound, *frames]
    heard, shown = 0, []
    for moment in cut(items, delay):
        if moment.frame is not None:
            shown.append((moment.frame.seq, moment.frame.index))
            late = heard / RATE - moment.frame.time
            assert late == pytest.approx(delay, abs=1 / RATE) or heard == 4 * CLIP
        assert list(moment.samples[:1]) in ([], [heard])
        heard += len(moment.samples)
        assert moment.end in (heard, 0)
    assert heard == 4 * CLIP and shown == [(s, i) for s in range(4) for i in range(PICTURES)]


def test_sound_waits_for_no_picture_that_is_missing() -> None:
    first, frames = clip(0)
    second, _ = clip(1, has_frames=False)
    moments = cut([first, frames[0], frames[5], second])
    assert sum(len(m.samples) for m in moments) == 2 * CLIP
    assert [m.end - len(m.samples) for m in moments if m.frame is not None] == [0, 5000]


def test_an_interruption_drops_the_rest_of_the_old_speech() -> None:
    old, frames = clip(0)
    new, others = clip(0, epoch=1)
    moments = cut([old, *frames[:3], new, *others])
    assert [m.frame.epoch for m in moments if m.frame] == [0] * 3 + [1] * PICTURES
    assert sum(len(m.samples) for m in moments) == 2000 + CLIP


def test_idle_life_comes_at_once_and_behind_all_speech() -> None:
    sound, frames = clip(0)
    cutter = MomentCutter(0.08)
    items: list[Frame | Sound] = [sound, *frames]
    spoken = [moment for item in items for moment in cutter.take(item)]
    idle = replace(frames[0], seq=1, time=0.5, idle=True)
    moments = cutter.take(idle)
    assert [m.frame.index for m in moments if m.frame] == [11, 0] and moments[-1].frame is idle
    assert sum(len(m.samples) for m in spoken) == CLIP
    assert cutter.end() == []
