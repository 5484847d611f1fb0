"""The places of sound and pictures in a recording, by a clock that the test holds."""

from __future__ import annotations

import numpy as np

from gateway.core.audio_log import ClipAudio
from gateway.core.players import ClipSound
from gateway.recording.timeline import PicturePiece, RecordingTimeline, SoundPiece
from protocol.wire.browser import AudioMessage, VideoMessage

RATE = 16_000


def clip(seq: int, pts: int | None = None, epoch: int = 0, length: int = 8000) -> ClipSound:
    samples = np.full(length, seq, np.float32)
    at = seq * 8000 if pts is None else pts
    return ClipSound(AudioMessage(samples, epoch, seq, at), ClipAudio(seq, at, 0, samples, 0.0, True))


def pictures(seq: int, pts: int | None = None, epoch: int = 0, codec: str = "h264") -> list[VideoMessage]:
    start = seq * 8000 if pts is None else pts
    return [
        VideoMessage(b"p", epoch, seq, index, 12, start + index * RATE // 24, codec, index == 0)
        for index in range(12)
    ]


def put(timeline: RecordingTimeline, seq: int, start: float, pts: int | None = None, epoch: int = 0) -> None:
    timeline.add_sound(clip(seq, pts, epoch), start)
    for each in pictures(seq, pts, epoch):
        timeline.add_picture(each, start)


def sounds(pieces: list[SoundPiece | PicturePiece]) -> list[tuple[int, int]]:
    """First and last sample of each piece of sound."""
    return [(p.start, p.start + len(p.samples)) for p in pieces if isinstance(p, SoundPiece)]


def shown(pieces: list[SoundPiece | PicturePiece]) -> list[int]:
    return [p.pts for p in pieces if isinstance(p, PicturePiece)]


def test_nothing_comes_before_its_time_and_all_of_it_then() -> None:
    timeline = RecordingTimeline(RATE)
    put(timeline, 0, 10.0)
    assert sounds(timeline.pull(10.25)) == [(0, 4000)]
    rest = timeline.pull(10.6)
    assert sounds(rest) == [(4000, 8000)] and shown(rest) == [i * RATE // 24 for i in range(7, 12)]


def test_clips_that_follow_each_other_lie_without_a_gap_even_when_one_came_late() -> None:
    timeline = RecordingTimeline(RATE)
    put(timeline, 0, 10.0)
    put(timeline, 1, 10.7)  # 0.2 s after its turn
    assert sounds(timeline.pull(20)) == [(0, 8000), (8000, 16000)]


def test_a_pause_is_as_long_as_it_was() -> None:
    timeline = RecordingTimeline(RATE)
    put(timeline, 0, 10.0)
    put(timeline, 5, 13.0, pts=40_000)
    pieces = timeline.pull(20)
    assert sounds(pieces) == [(0, 8000), (48_000, 56_000)]
    assert shown(pieces)[12] == 48_000


def test_an_interruption_forgets_what_was_not_played() -> None:
    timeline = RecordingTimeline(RATE)
    put(timeline, 0, 10.0)
    put(timeline, 1, 10.5)
    pieces = timeline.cut(10.6)
    assert np.allclose(sounds(pieces), [(0, 8000), (8000, 9600)], atol=1)
    assert len(shown(pieces)) == 12 + 3
    put(timeline, 0, 11.1, epoch=1)
    later = timeline.pull(20)
    assert np.allclose(sounds(later), [(1.1 * RATE, 1.6 * RATE)], atol=1)
    assert len(shown(later)) == 12 and timeline.pull(30) == []


def test_pictures_that_cannot_be_decoded_or_have_no_clip_are_dropped() -> None:
    timeline = RecordingTimeline(RATE)
    for each in pictures(0):  # the recording began in the middle of a clip
        timeline.add_picture(each, 9.9)
    timeline.add_sound(clip(1), 10.0)
    for each in pictures(1)[:4] + pictures(1)[6:]:
        timeline.add_picture(each, 10.0)
    assert len(shown(timeline.pull(20))) == 4


def test_pictures_of_idle_life_lie_where_they_came() -> None:
    timeline = RecordingTimeline(RATE)
    idle = [VideoMessage(b"i", 0, 3, i, 12, 24_000 + i, "jpeg", True, True) for i in range(2)]
    timeline.add_picture(idle[0], 10.0)
    timeline.add_picture(idle[1], 10.5)
    put(timeline, 4, 12.0)
    pieces = timeline.pull(20)
    assert shown(pieces)[-2:] == [0, 8000] and sounds(pieces) == [(32_000, 40_000)]
