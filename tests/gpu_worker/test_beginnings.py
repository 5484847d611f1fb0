"""What is kept of a session's beginning, and for whom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gpu_worker.engine.beginnings import MOST_KEPT, Beginnings
from protocol.wire.messages import Clip


def clip(session: str = "a", seq: int = 0, avatar: str = "ann", pose: str = "rest") -> Clip:
    return Clip(session, 0, seq, seq * 8000, 24, avatar, pose, np.zeros((3, 1, 384), np.float16))


def test_the_first_frame_of_the_first_session_serves_the_others() -> None:
    kept: Beginnings[torch.Tensor] = Beginnings()
    made = torch.randn(3, 4, 2, 2)
    assert kept.before(clip()) is None
    kept.keep(clip(), made)
    kept.keep(clip("b"), made + 1)
    first = kept.before(clip("c"))
    assert first is not None and torch.equal(first, made[0])
    made.zero_()  # it is a copy
    assert first.any()
    for other in (clip(seq=1), clip(avatar="bob"), clip(pose="wave"), clip("_rate-0")):
        assert kept.before(other) is None
    kept.forget()
    assert kept.before(clip()) is None


@pytest.mark.parametrize("one", [clip("_warm"), clip(seq=3), clip(avatar="own-" + "0" * 32)])
def test_whose_beginning_is_not_kept(one: Clip) -> None:
    kept: Beginnings[NDArray[np.float32]] = Beginnings()
    kept.keep(one, np.ones((3, 4, 2, 2), np.float32))
    assert kept.before(one) is None and not kept._kept


def test_values_that_are_not_finite_serve_nobody() -> None:
    kept: Beginnings[NDArray[np.float32]] = Beginnings()
    for bad in (np.nan, np.inf):
        kept.keep(clip(), np.full((3, 4, 2, 2), bad, np.float32))
    assert kept.before(clip()) is None


def test_there_is_a_bound() -> None:
    kept: Beginnings[NDArray[np.float32]] = Beginnings()
    for number in range(MOST_KEPT + 3):
        kept.keep(clip(avatar=str(number)), np.ones((1, 4, 2, 2), np.float32))
    assert kept.before(clip(avatar="2")) is None and kept.before(clip(avatar="3")) is not None
