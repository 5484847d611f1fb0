"""How many sessions a machine serves: by what was timed at the start, in a pause and in service."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.rate.capacity import Capacity
from gpu_worker.rate.trial import RateChoice


@given(st.floats(0.005, 3.0), st.floats(0.005, 1.0), st.floats(0.0, 2.0))
def test_the_sessions_have_a_fifth_to_spare(chosen: float, lowest: float, in_service: float) -> None:
    capacity = Capacity(12, 8)
    capacity.lowest_seconds = lowest
    sessions = capacity.sessions(RateChoice(24, chosen, ""), "cpu", in_service)
    slowest = max(lowest, in_service)
    assert sessions >= 1
    assert sessions == 1 or sessions * slowest <= 0.8 * 0.5 + 1e-9
    assert (sessions + 1) * slowest > 0.8 * 0.5


def test_before_the_lowest_rate_is_timed_its_frames_count() -> None:
    assert Capacity(12, 8).sessions(RateChoice(24, 0.3, ""), "cpu") == 4
    assert Capacity(12, 8).sessions(RateChoice(8, 0.3, ""), "cpu") == 1
    assert Capacity(12, 24).sessions(RateChoice(24, 0.1, ""), "cpu") == 4


def test_a_gpu_s_lone_clips_take_longer_than_clips_in_a_row() -> None:
    capacity = Capacity(12, 8)
    capacity.lowest_seconds = 0.1
    choice = RateChoice(24, 0.25, "")
    assert capacity.sessions(choice, "cuda", 0.12) == 4
    assert capacity.sessions(choice, "cpu", 0.12) == 3


@given(st.floats(0.1, 1.0), st.floats(0.0, 0.6), st.sampled_from([24, 12]))
def test_the_fixed_share_is_found(full: float, share: float, fps: int) -> None:
    def seconds(frames: int) -> float:
        return full * (share + (1 - share) * frames / 12)

    capacity = Capacity(12, 8)
    choice = RateChoice(fps, seconds(fps // 2), "")
    assert capacity.fixed_share(choice) == 0.0
    capacity.lowest_seconds = seconds(4)
    assert capacity.fixed_share(choice) == pytest.approx(share, abs=1e-6)


@given(st.floats(0.0, 10.0), st.floats(0.0, 10.0), st.sampled_from([24, 12, 8]))
def test_times_that_contradict_each_other_keep_it_within_bounds(low: float, high: float, fps: int) -> None:
    capacity = Capacity(12, 8)
    capacity.lowest_seconds = low
    assert 0.0 <= capacity.fixed_share(RateChoice(fps, high, "")) <= 0.6
