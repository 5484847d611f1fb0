"""The session's audio log: pieces, clips, pauses and exact samples."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.audio_log import AudioLog, ClipShape
from protocol.wire.messages import Samples

SHAPES = st.sampled_from([ClipShape(24, 12), ClipShape(12, 6), ClipShape(8, 4), ClipShape(25, 12)])
RATES = st.sampled_from([8000, 11025, 16000, 44100, 48000])
#: A script of a client: how many samples it sends, or None for a pause.
SCRIPT = st.lists(st.one_of(st.integers(1, 30_000), st.none()), max_size=12)


def ramp(start: int, count: int) -> Samples:
    return np.arange(start, start + count, dtype=np.float32)


@given(SHAPES, RATES, SCRIPT)
def test_clips_give_back_what_was_sent(shape: ClipShape, rate: int, script: list[int | None]) -> None:
    log = AudioLog(shape, rate)
    sent = 0
    pieces = []
    for step in script:
        if step is None:
            flushed = log.flush(0.0)
            pieces += [flushed] if flushed else []
        else:
            pieces += log.append(ramp(sent, step), 0.0)
            sent += step
    clips = [log.release(k) for k in range(log.clip)]
    heard = np.concatenate([c.samples for c in clips] + [log.take_from(log.clip)])
    assert np.array_equal(heard, ramp(0, sent))
    assert log.held == 0
    for k, clip in enumerate(clips):
        assert clip.pts == shape.pts(k)
        assert 0 < len(clip.samples) <= log.bound(k + 1) - log.bound(k)
        assert clip.position == sum(len(c.samples) for c in clips[:k])
        if k and clip.joined:
            assert len(clips[k - 1].samples) == log.bound(k) - log.bound(k - 1)
    assert np.array_equal(
        np.concatenate([np.empty(0, np.float32)] + [p.samples for p in pieces]), ramp(0, sent)
    )


@given(SHAPES, RATES, SCRIPT)
def test_pieces_stay_within_their_clip_and_rise(
    shape: ClipShape, rate: int, script: list[int | None]
) -> None:
    log = AudioLog(shape, rate)
    last = -1
    for step in script:
        if step is None:
            made = [p for p in [log.flush(0.0)] if p]
        else:
            made = log.append(ramp(0, step), 0.0)
        for piece in made:
            assert shape.pts(piece.clip) <= piece.pts <= shape.pts(piece.clip + 1) - (not piece.flush)
            assert piece.pts >= last
            end = piece.pts + len(piece.samples) * 16000 // rate
            assert end <= shape.pts(piece.clip + 1)
            assert log.complete(piece.clip) == (piece.clip < log.clip)
            last = piece.pts


def test_a_pause_moves_speech_to_the_next_clip() -> None:
    log = AudioLog(ClipShape(24, 12))
    log.append(ramp(0, 9000), 1.0)
    flushed = log.flush(2.0)
    assert flushed is not None and flushed.flush and flushed.pts == 9000 and not len(flushed.samples)
    assert log.flush(3.0) is None
    [piece] = log.append(ramp(9000, 100), 4.0)
    assert (piece.clip, piece.pts) == (2, 16000)
    second = log.audio(1)
    assert (len(second.samples), second.position, second.ended_at, second.joined) == (1000, 8000, 2.0, True)
    log.append(ramp(0, 7900), 5.0)
    assert log.audio(2).joined is False and log.audio(2).position == 9000


def test_a_pause_at_a_clips_end_flushes_what_a_resampler_holds_back() -> None:
    log = AudioLog(ClipShape(24, 12), 48000)
    log.append(ramp(0, 24000), 1.0)
    flushed = log.flush(2.0)
    assert flushed is not None and (flushed.clip, flushed.pts, flushed.flush) == (0, 8000, True)
    assert log.flush(3.0) is None and log.clip == 1
    log.append(ramp(0, 24000), 4.0)
    assert log.audio(1).joined is False and log.audio(1).position == 24000
    plain = AudioLog(ClipShape(24, 12))
    plain.append(ramp(0, 8000), 1.0)
    assert plain.flush(2.0) is None


def test_released_and_unfinished_clips_are_unknown() -> None:
    log = AudioLog(ClipShape(24, 12))
    log.append(ramp(0, 8001), 0.0)
    log.release(0)
    for clip in (0, 1):
        with pytest.raises(KeyError):
            log.audio(clip)
    assert log.complete(0) and not log.complete(1)
