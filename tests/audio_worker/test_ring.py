"""The ring and the resampling stream: any chunking, flush, repeats and holes give the right windows."""

from __future__ import annotations

import numpy as np
import pytest
import soxr
from hypothesis import given, settings
from hypothesis import strategies as st

from audio_worker.ring import WINDOW, ClipRing, ClipWindow, SpeechError, SpeechStream
from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.messages import Samples

SPEECH = np.random.default_rng(3).uniform(-1, 1, 5 * SAMPLE_RATE).astype(np.float32)


def chunks(samples: Samples, sizes: list[int]) -> list[Samples]:
    """`samples` cut at the given sizes, over and over."""
    cut, at = [], 0
    while at < len(samples):
        for size in sizes:
            cut.append(samples[at : at + size])
            at += size
    return [chunk for chunk in cut if len(chunk)]


def stream(
    samples: Samples, sizes: list[int], rate: int = SAMPLE_RATE, fps: int = 24, frames: int = 12
) -> list[ClipWindow]:
    """All windows of a stream sent in chunks, and flushed."""
    speech = SpeechStream(rate, fps, frames)
    windows, sent = [], 0
    for chunk in chunks(samples, sizes):
        windows += speech.add_chunk(chunk, sent * SAMPLE_RATE // rate)
        sent += len(chunk)
    return windows + speech.add_chunk(np.zeros(0, np.float32), sent * SAMPLE_RATE // rate, flush=True)


def expected(samples: Samples, fps: int, frames: int) -> list[ClipWindow]:
    """The windows by their definition, from the whole signal."""
    windows: list[ClipWindow] = []
    while True:
        seq = len(windows)
        start, end = seq * frames * SAMPLE_RATE // fps, (seq + 1) * frames * SAMPLE_RATE // fps
        if start >= len(samples):
            return windows
        padded = np.concatenate([np.zeros(WINDOW, np.float32), samples, np.zeros(WINDOW, np.float32)])
        windows.append(ClipWindow(seq, start, padded[end : end + WINDOW]))


def same(left: list[ClipWindow], right: list[ClipWindow]) -> None:
    assert [(w.seq, w.pts) for w in left] == [(w.seq, w.pts) for w in right]
    for a, b in zip(left, right, strict=True):
        assert a.samples.shape == (WINDOW,)
        np.testing.assert_array_equal(a.samples, b.samples)


@settings(max_examples=60, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 3 * SAMPLE_RATE), min_size=1, max_size=6).filter(lambda s: sum(s) > 50),
    length=st.integers(1, len(SPEECH)),
    shape=st.sampled_from([(24, 12), (12, 6), (8, 4), (25, 12), (30, 12), (24, 5), (8, 12)]),
)
def test_any_chunking_gives_the_windows_of_the_definition(
    sizes: list[int], length: int, shape: tuple[int, int]
) -> None:
    fps, frames = shape
    same(stream(SPEECH[:length], sizes, fps=fps, frames=frames), expected(SPEECH[:length], fps, frames))


def test_one_sample_at_a_time() -> None:
    same(stream(SPEECH[:9001], [1]), expected(SPEECH[:9001], 24, 12))


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 30000), min_size=1, max_size=5).filter(lambda s: sum(s) > 200),
    rate=st.sampled_from([8000, 22050, 44100, 48000]),
    length=st.integers(1000, 60000),
)
def test_other_rates_are_resampled_the_same_in_any_chunks(sizes: list[int], rate: int, length: int) -> None:
    samples = SPEECH[:length]
    whole = soxr.resample(samples, rate, SAMPLE_RATE, quality="HQ")[: length * SAMPLE_RATE // rate]
    got, wanted = stream(samples, sizes, rate=rate), expected(whole, 24, 12)
    assert [(w.seq, w.pts) for w in got] == [(w.seq, w.pts) for w in wanted]
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_allclose(a.samples, b.samples, atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 9000)), max_size=8))
def test_chunks_that_come_twice_change_nothing(steps: list[tuple[int, int]]) -> None:
    ring, windows, sent = ClipRing(24, 12), [], 0
    for back, size in steps:
        start = max(0, sent - back)
        windows += ring.push(SPEECH[start : start + size], start)
        sent = max(sent, start + size)
    same(windows + ring.flush(), expected(SPEECH[:sent], 24, 12))


@pytest.mark.parametrize("rate", [16000, 48000])
def test_a_replaced_worker_begins_in_the_middle(rate: int) -> None:
    """The first sample it sees is not the stream's first: the clip in progress still comes, in its place."""
    windows = SpeechStream(rate, 24, 12).add_chunk(SPEECH[: rate * 3 // 4], 20_000, flush=True)
    assert [(w.seq, w.pts) for w in windows] == [(2, 16_000), (3, 24_000)]
    assert not windows[0].samples[: WINDOW - 4000].any()


def test_a_short_hole_is_silence() -> None:
    ring = ClipRing(24, 12)
    windows = ring.push(SPEECH[:5000], 0) + ring.push(SPEECH[:5000], 12_000) + ring.flush()
    holed = np.concatenate([SPEECH[:5000], np.zeros(7000, np.float32), SPEECH[:5000]])
    same(windows, expected(holed, 24, 12))


def test_after_a_long_hole_the_stream_begins_anew() -> None:
    ring = ClipRing(24, 12)
    windows = ring.push(SPEECH[:5000], 0) + ring.push(SPEECH[:8000], 10**12 * 8000)
    assert [w.seq for w in windows] == [0, 10**12]
    assert not windows[1].samples[:16_000].any()


def test_flush_without_a_partial_clip_gives_nothing() -> None:
    ring = ClipRing(24, 12)
    assert ring.flush() == []
    assert len(ring.push(SPEECH[:16000], 0)) == 2
    assert ring.flush() == []
    assert ring.position == 16000


@pytest.mark.parametrize("rate", [16000, 44100])
def test_speech_goes_on_after_a_flush(rate: int) -> None:
    speech = SpeechStream(rate, 24, 12)
    first = speech.add_chunk(SPEECH[: rate // 10], 0, flush=True)
    again = speech.add_chunk(SPEECH[: rate // 2], 8000, flush=True)
    assert [(w.seq, w.pts) for w in first + again] == [(0, 0), (1, 8000)]


def test_a_clip_longer_than_the_window_is_refused() -> None:
    with pytest.raises(SpeechError, match=r"longer than 1\.5 s"):
        ClipRing(8, 13)


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, SAMPLE_RATE), min_size=1, max_size=6).filter(lambda s: sum(s) > 50),
    length=st.integers(1, 2 * SAMPLE_RATE),
    ahead=st.integers(1, 1999),
)
def test_a_window_looks_ahead_in_any_chunking(sizes: list[int], length: int, ahead: int) -> None:
    """It ends behind its clip, and is there with its last sample. Behind the stream's end is silence."""
    ring, windows, sent = ClipRing(24, 3, ahead), list[ClipWindow](), 0
    for chunk in chunks(SPEECH[:length], sizes):
        windows += ring.push(chunk, sent)
        sent += len(chunk)
        assert len(windows) == max(0, (sent - ahead) // 2000)
    assert ring.looks_ahead == (length // 2000 > len(windows))
    windows += ring.flush()
    assert not ring.looks_ahead and ring.position == -(-length // 2000) * 2000
    assert [(w.seq, w.pts) for w in windows] == [(k, 2000 * k) for k in range(-(-length // 2000))]
    padded = np.concatenate([np.zeros(WINDOW, np.float32), SPEECH[:length], np.zeros(WINDOW, np.float32)])
    for window in windows:
        end = (window.seq + 1) * 2000 + ahead
        np.testing.assert_array_equal(window.samples, padded[end : end + WINDOW])


def test_a_stream_goes_on_after_a_clip_that_looked_no_further() -> None:
    ring = ClipRing(24, 3, 320)
    assert [w.seq for w in ring.push(SPEECH[:4100], 0)] == [0]
    (window,) = ring.look_no_further()
    assert window.seq == 1 and not ring.looks_ahead and ring.look_no_further() == []
    np.testing.assert_array_equal(window.samples[-420:], [*SPEECH[3900:4100], *np.zeros(220)])
    (window,) = ring.push(SPEECH[4100:7000], 4100)
    assert (window.seq, window.pts) == (2, 4000)
    np.testing.assert_array_equal(window.samples[-2320:], SPEECH[4000:6320])
    again = ring.push(SPEECH[:2320], 10**9 * 2000)  # the clip in progress, and one of the stream anew
    assert [w.seq for w in again] == [3, 10**9]
