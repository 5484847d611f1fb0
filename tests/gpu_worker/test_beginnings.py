"""What is kept of a session's beginning, and for whom."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_worker.engine.beginnings import MOST_KEPT, Beginnings
from protocol.wire.messages import Clip


def clip(session: str = "a", seq: int = 0, avatar: str = "ann", pose: str = "rest") -> Clip:
    return Clip(session, 0, seq, seq * 8000, 24, avatar, pose, np.zeros((3, 1, 384), np.float16))


def test_the_first_frame_of_the_first_session_serves_the_others() -> None:
    kept = Beginnings()
    made = np.random.default_rng(0).standard_normal((3, 4, 2, 2)).astype(np.float16)
    assert kept.before(clip()) is None
    kept.keep(clip(), made)
    kept.keep(clip("b"), made + 1)
    first = kept.before(clip("c"))
    assert first is not None and np.array_equal(first, made[0]) and first.dtype == np.float32
    for other in (clip(seq=1), clip(avatar="bob"), clip(pose="wave"), clip("_rate-0")):
        assert kept.before(other) is None
    kept.forget()
    assert kept.before(clip()) is None


@pytest.mark.parametrize("one", [clip("_warm"), clip(seq=3), clip(avatar="own-" + "0" * 32)])
def test_whose_beginning_is_not_kept(one: Clip) -> None:
    kept = Beginnings()
    kept.keep(one, np.ones((3, 4, 2, 2), np.float16))
    assert kept.before(one) is None and not kept._kept


def test_there_is_a_bound() -> None:
    kept = Beginnings()
    for number in range(MOST_KEPT + 3):
        kept.keep(clip(avatar=str(number)), np.ones((1, 4, 2, 2), np.float16))
    assert kept.before(clip(avatar="2")) is None and kept.before(clip(avatar="3")) is not None
