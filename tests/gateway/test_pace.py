"""Input is released at real time with a small head start, and bounded."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.pace import TOLERANCE, PacedInput
from protocol.wire.browser import BrowserError


def test_a_live_microphone_is_never_held_back() -> None:
    paced = PacedInput(16000)
    for tick in range(500):
        paced.put(np.full(320, tick, np.float32))
        assert len(paced.take(tick * 0.02)[0]) == 320
        assert not paced.full


def test_a_poured_file_comes_at_real_time() -> None:
    paced = PacedInput(16000)
    paced.put(np.zeros(16000 * 10, np.float32))
    assert paced.full
    assert len(paced.take(100.0)[0]) == int(16000 * TOLERANCE)
    assert len(paced.take(100.0)[0]) <= 1
    assert len(paced.take(101.0)[0]) == pytest.approx(16000 * TOLERANCE, abs=2)
    wait = paced.wait(101.0)
    assert wait is not None and 0 < wait < 0.05


@given(st.lists(st.tuples(st.integers(0, 20_000), st.floats(0, 2)), max_size=40))
def test_order_is_kept_and_the_rate_bounded(steps: list[tuple[int, float]]) -> None:
    paced = PacedInput(16000, bound=1000)
    now, sent, got = 50.0, 0, []
    for count, wait in steps:
        paced.put(np.arange(sent, sent + count, dtype=np.float32))
        sent += count
        now += wait
        got.append(paced.take(now)[0])
        taken = sum(map(len, got))
        assert taken <= 16000 * TOLERANCE * (1.0 + now - 50.0) + 2
        assert paced.waiting == sent - taken
    flat = np.concatenate(got) if got else np.empty(0, np.float32)
    assert np.array_equal(flat, np.arange(len(flat), dtype=np.float32))


def test_too_much_waiting_is_an_error() -> None:
    paced = PacedInput(16000, bound=2.0)
    paced.put(np.zeros(32000, np.float32))
    with pytest.raises(BrowserError, match="no faster than real time") as err:
        paced.put(np.zeros(1, np.float32))
    assert err.value.code == "too_fast"


def voice(seconds: float, pauses: bool = True) -> np.ndarray:
    """A buzz of 120 Hz, of which every third 0.2 s is a pause."""
    t = np.arange(int(seconds * 16000)) / 16000
    buzz = 0.1 * np.sum([np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 8)], axis=0)
    heard = t % 0.6 < 0.4 if pauses else np.ones(len(t), bool)
    return np.asarray(buzz * heard, np.float32)


def lag_after(backlog: float, seconds: float, sound: np.ndarray) -> tuple[PacedInput, float]:
    """Let a backlog come at once and then live sound. Returns how far behind it is after these seconds."""
    paced = PacedInput(16000)
    sent = int(backlog * 16000)
    paced.put(sound[:sent])
    free_at = now = 0.0
    for tick in range(int(seconds * 50)):
        now = tick * 0.02
        paced.put(sound[sent : sent + 320])
        sent += 320
        paced.catch_up(now)
        if not paced.gathering:
            free_at = max(free_at, now) + len(paced.take(now)[0]) / 16000
    return paced, max(0.0, free_at - now) + paced.waiting / 16000


@pytest.mark.parametrize(
    ("backlog", "pauses", "left_out"), [(1.4, True, 0), (2.0, False, 0), (2.5, True, 0.5), (8.0, True, 6.0)]
)
def test_live_sound_that_comes_late_catches_up(backlog: float, pauses: bool, left_out: float) -> None:
    paced, lag = lag_after(backlog, 2.0, voice(12.0, pauses))
    assert lag < 0.65  # a clip is half a second, so this delays nothing
    assert paced.seconds_left_out == pytest.approx(left_out, abs=0.05)


def test_live_sound_in_time_is_left_alone() -> None:
    paced, lag = lag_after(0.35, 6.0, voice(8.0))
    assert paced.seconds_faster == paced.seconds_left_out == 0 and lag < 0.4


@given(st.integers(0, 2**32 - 1), st.floats(0.1, 4.0), st.floats(0.0, 4.0))
def test_every_sample_is_taken_cut_or_left_out(seed: int, backlog: float, second: float) -> None:
    sound = np.random.default_rng(seed).uniform(-0.3, 0.3, 16000 * 6).astype(np.float32)
    paced = PacedInput(16000)
    put = taken = cut = left_out = 0
    for tick in range(100):
        count = int({20: backlog, 25: second}.get(tick, 0.02) * 16000)
        paced.put(sound[:count])
        put += count
        left_out += paced.catch_up(tick * 0.02)
        samples, fewer = paced.take(tick * 0.02)
        taken, cut = taken + len(samples), cut + fewer
    rest, fewer = paced.take(1000.0)
    while len(rest):
        taken, cut = taken + len(rest), cut + fewer
        rest, fewer = paced.take(1000.0 + put)
    assert taken + cut + left_out == put
