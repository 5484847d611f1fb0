"""The rate trial, with a simulated machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.rate.pace import (
    CLIPS,
    HEADROOM,
    OUTSTANDING,
    Pace,
    PaceTrial,
    given_pace,
    headroom,
)
from protocol.wire.clock import FRAME_RATES, frames_of_clip


def simulate(cost_per_frame: float, clip_frames: int = 12, settle: float = 0.0) -> tuple[Pace, list[int]]:
    """Runs a trial on a machine that takes `cost_per_frame`, three times as much before second `settle`."""
    trial = PaceTrial(clip_frames, HEADROOM, "a clip")
    now, tried = 0.0, []
    on_their_way: list[int] = []
    for _ in range(1000):
        for _ in range(trial.to_send(now)):
            if not tried or tried[-1] != trial.fps:
                tried.append(trial.fps)
            on_their_way.append(trial.attempt)
            trial.sent(0.0, now)
        assert trial.outstanding <= OUTSTANDING
        if on_their_way:
            now += cost_per_frame * frames_of_clip(trial.fps, clip_frames) * (3 if now < settle else 1)
            trial.came_back(on_their_way.pop(0), now)
        else:
            now += 0.1
        if trial.result is not None:
            return trial.result, tried
    raise AssertionError("the trial never ends")


def test_a_fast_machine_gets_24_without_a_notice() -> None:
    pace, tried = simulate(0.4 / 12)
    assert pace == Pace(24, pytest.approx(0.4), "")
    assert tried == [24]


@pytest.mark.parametrize(("clip_at_24", "fps"), [(0.39, 24), (0.6, 12), (0.75, 12), (1.0, 8), (1.3, 8)])
def test_the_highest_rate_that_is_held(clip_at_24: float, fps: int) -> None:
    pace, _ = simulate(clip_at_24 / 12)
    assert pace.fps == fps
    assert (pace.notice == "") == (fps == 24)
    if fps != 24:
        assert f"a clip of 0.50 s takes {clip_at_24:.2f} s at 24 fps" in pace.notice
        assert pace.notice.startswith(f"this machine holds {fps} frames per second")


def test_too_slow_for_anything_says_so() -> None:
    pace, tried = simulate(0.5)
    assert pace.fps == 8
    assert tried == [24, 12, 8]
    assert "too slow even for 8" in pace.notice


def test_a_single_core_has_the_other_stages_to_carry_too() -> None:
    assert [headroom(cores) for cores in (1, 2, 16)] == [0.7, HEADROOM, HEADROOM]


def test_a_busy_start_does_not_cost_the_rate() -> None:
    assert simulate(0.35 / 12, settle=3.0)[0].fps == 24


def test_a_hopeless_model_is_not_waited_for() -> None:
    trial = PaceTrial(12, HEADROOM, "a clip")
    now = 0.0
    for seconds in (60.0, 30.0, 20.0):
        assert trial.to_send(now) == OUTSTANDING
        attempt, now = trial.attempt, now + seconds
        trial.sent(seconds, now)
        trial.came_back(attempt, now + 1)  # of an attempt that is over
    assert trial.result is not None
    assert trial.result.fps == 8
    assert "60.00 s at 24 fps, 30.00 s at 12 fps, 20.00 s at 8 fps" in trial.result.notice


def test_given_rate_is_kept_and_the_notice_says_what_it_costs() -> None:
    assert given_pace(24, 0.3, 12) == Pace(24, 0.3, "")
    slow = given_pace(24, 0.9, 12)
    assert slow.fps == 24
    assert "--fps 24 is kept" in slow.notice
    assert "0.90 s" in slow.notice


@given(st.floats(0.0, 1.0), st.integers(1, 24))
def test_any_machine_gets_a_rate_it_holds_if_there_is_one(cost: float, clip_frames: int) -> None:
    pace, _ = simulate(cost, clip_frames)
    assert pace.fps in FRAME_RATES

    def holds(fps: int) -> bool:
        return cost * fps <= HEADROOM * 0.999

    if any(holds(fps) for fps in FRAME_RATES):
        assert pace.fps >= max(fps for fps in FRAME_RATES if holds(fps))
    assert CLIPS > OUTSTANDING


def test_frames_of_a_clip_last_as_long_at_each_rate() -> None:
    assert [frames_of_clip(fps, 12) for fps in (24, 12, 8)] == [12, 6, 4]
    assert frames_of_clip(8, 1) == 1
