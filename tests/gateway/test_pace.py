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
        assert len(paced.take(tick * 0.02)) == 320
        assert not paced.full


def test_a_poured_file_comes_at_real_time() -> None:
    paced = PacedInput(16000)
    paced.put(np.zeros(16000 * 10, np.float32))
    assert paced.full
    assert len(paced.take(100.0)) == int(16000 * TOLERANCE)
    assert len(paced.take(100.0)) <= 1
    assert len(paced.take(101.0)) == pytest.approx(16000 * TOLERANCE, abs=2)
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
        got.append(paced.take(now))
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


def test_samples_put_back_come_first() -> None:
    paced = PacedInput(16000)
    paced.put(np.ones(10, np.float32))
    paced.put_back(np.zeros(5, np.float32))
    assert paced.take(0.0).tolist() == [0.0] * 5 + [1.0] * 10
