"""Sound on its way up: kept until it is back, sent again where it was lost, never too far ahead."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from echomimic_live_client.outbox import MESSAGE_SAMPLES, Outbox
from echomimic_live_client.pcm import to_samples

RATE = 1000


def ramp(count: int, start: int = 0) -> np.ndarray:
    return np.arange(start, start + count, dtype=np.float32)


def test_no_more_is_sent_than_may_be_on_its_way() -> None:
    box = Outbox(RATE, ahead=20)
    box.push(ramp(50_000))
    sent = []
    while (samples := box.next_samples()) is not None:
        sent.append(samples)
    assert sum(map(len, sent)) == 20 * RATE and max(map(len, sent)) == MESSAGE_SAMPLES
    box.came_back(500)
    again = box.next_samples()
    assert again is not None and again.tolist() == ramp(500, 20_000).tolist()
    assert (box.waiting, box.returned) == (29_500, 500)


def test_the_end_of_speech_keeps_its_place() -> None:
    box = Outbox(RATE)
    box.push(ramp(30))
    box.end_speech()
    box.end_speech()
    box.push(ramp(5, 30))
    assert not box.next_is_end()
    first = box.next_samples()
    assert first is not None and len(first) == 30
    assert box.next_samples() is None
    assert box.next_is_end() and not box.next_is_end()
    last = box.next_samples()
    assert last is not None and last.tolist() == ramp(5, 30).tolist()
    box.go_on_at(30)  # it may not have arrived
    assert box.next_is_end()
    assert box.next_samples() is not None
    box.go_on_at(31)
    assert not box.next_is_end()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 30_000)),
        st.tuples(st.just("send"), st.integers(1, 4)),
        st.tuples(st.just("back"), st.integers(0, 9000)),
        st.tuples(st.just("lost"), st.integers(0, 9000)),
        st.tuples(st.just("end"), st.just(0)),
    ),
    max_size=40,
)


@given(steps)
def test_a_server_hears_every_sample_once_whatever_is_lost(course: list[tuple[str, int]]) -> None:
    box = Outbox(RATE)
    had: list[np.ndarray] = []  # the server's samples, as far as they arrived

    def arrived() -> int:
        return sum(map(len, had))

    for step, number in course:
        if step == "push":
            box.push(ramp(number, box.pushed))
        elif step == "end":
            box.end_speech()
        elif step == "back":
            box.came_back(min(arrived(), box.returned + number))
        elif step == "lost":  # the last samples never arrived
            keep = max(box.returned, arrived() - number)
            had = [np.concatenate([*had, ramp(0)])[:keep]]
            box.go_on_at(keep)
            assert box.sent == keep
        else:
            for _ in range(number):
                box.next_is_end()
                if (samples := box.next_samples()) is not None:
                    had.append(samples)
        assert box.sent - box.returned <= 8 * RATE
    while box.waiting:
        box.next_is_end()
        if (samples := box.next_samples()) is not None:
            had.append(samples)
        box.came_back(arrived())
    assert np.concatenate([*had, ramp(0)]).tolist() == ramp(box.pushed).tolist()


def test_sound_of_many_kinds() -> None:
    ints = np.array([-32768, 0, 16384], np.int16)
    wanted = [-1.0, 0.0, 0.5]
    for pcm in (ints, ints.tobytes(), memoryview(ints.tobytes()), bytearray(ints.tobytes()), ints[:, None],
                np.array(wanted), np.array(wanted, ">f4"), ints.astype(">i2")):  # fmt: skip
        samples = to_samples(pcm)
        assert samples.dtype == np.float32 and samples.tolist() == wanted
    assert to_samples(b"").shape == (0,)


@pytest.mark.parametrize(
    "pcm",
    [b"abc", np.zeros((4, 2), np.int16), np.zeros(3, np.int32), np.zeros(3, np.uint8), np.array([np.nan]),
     np.array([1e300]), np.array([20000.0]), np.float32(1.0)],
)  # fmt: skip
def test_sound_of_no_kind_is_refused(pcm: np.ndarray) -> None:
    with pytest.raises(ValueError):
        to_samples(pcm)
