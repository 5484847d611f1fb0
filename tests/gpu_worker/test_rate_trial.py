"""The rate trial, with a simulated machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.rate.trial import (
    CLIPS_IN_FLIGHT,
    MAX_SHARE,
    MAX_SHARE_AT_LOWEST,
    RETRY_DELAY,
    RateChoice,
    RateTrial,
    choose_given_rate,
    max_share,
)
from protocol.wire.clock import FRAME_RATES, frames_of_clip


def simulate(
    cost_per_frame: float, clip_frames: int = 12, settle: float = 0.0
) -> tuple[RateChoice, list[int]]:
    """Runs a trial on a machine that makes frames one after another.

    Args:
        cost_per_frame: seconds that a frame takes, and three times as many before second `settle`.
        clip_frames: of a clip at 24 fps.
        settle: in seconds.

    Returns:
        The trial's result, and the rates that it tried.
    """
    trial = RateTrial(MAX_SHARE, "a clip", lengths=(clip_frames,))
    now, tried, most = 0.0, list[int](), 0
    in_flight: list[int] = []
    for _ in range(1000):
        for _ in range(trial.clips_to_send(now)):
            if not tried or tried[-1] != trial.fps:
                tried.append(trial.fps)
            in_flight.append(trial.attempt)
            trial.clip_sent(0.0, now)
        most = max(most, trial.in_flight)
        if in_flight:
            now += cost_per_frame * frames_of_clip(trial.fps, clip_frames) * (3 if now < settle else 1)
            trial.clip_returned(in_flight.pop(0), now)
        else:
            now += 0.1
        if trial.result is not None:
            assert most == CLIPS_IN_FLIGHT
            return trial.result, tried
    raise AssertionError("the trial never ends")


def test_a_fast_machine_gets_24_without_a_notice() -> None:
    choice, tried = simulate(0.4 / 12)
    assert (choice.fps, choice.notice) == (24, "")
    assert choice.clip_seconds == pytest.approx(0.4)
    assert tried == [24]


@pytest.mark.parametrize(("clip_at_24", "fps"), [(0.39, 24), (0.6, 12), (0.75, 12), (1.0, 8), (1.3, 8)])
def test_the_highest_rate_that_is_held(clip_at_24: float, fps: int) -> None:
    choice, _ = simulate(clip_at_24 / 12)
    assert choice.fps == fps
    assert (choice.notice == "") == (fps == 24)
    if fps != 24:
        assert f"a clip of 0.50 s takes {clip_at_24:.2f} s at 24 fps" in choice.notice
        assert choice.notice.startswith(f"this machine holds {fps} frames per second")


def test_a_machine_too_slow_for_the_lowest_rate_is_told_so() -> None:
    choice, tried = simulate(0.5)
    assert choice.fps == 8
    assert tried == [24, 12, 8]
    assert "too slow even for 8" in choice.notice


def test_a_single_core_has_the_other_stages_to_carry_too() -> None:
    shares = [max_share(cores) for cores in (1, 2, 4, 16)]
    assert shares == pytest.approx([0.55, 0.775, MAX_SHARE, MAX_SHARE])


def test_a_busy_start_does_not_cost_the_rate() -> None:
    assert simulate(0.35 / 12, settle=3.0)[0].fps == 24


def test_a_rate_that_failed_is_tried_once_more_after_a_pause() -> None:
    trial = RateTrial(MAX_SHARE, "a clip")
    now = 0.0
    for _ in range(100):
        for _ in range(trial.clips_to_send(now)):
            trial.clip_sent(0.0, now)
        now += 0.45
        trial.clip_returned(0, now)
        if trial.attempt:
            break
    assert (trial.attempt, trial.fps) == (1, 24)
    assert trial.clips_to_send(now + RETRY_DELAY - 0.01) == 0
    assert trial.clips_to_send(now + RETRY_DELAY) == CLIPS_IN_FLIGHT


def test_a_model_far_too_slow_is_given_up_at_its_first_clip() -> None:
    trial = RateTrial(MAX_SHARE, "a clip")
    now = 0.0
    for seconds in (60.0, 30.0, 20.0):
        assert trial.clips_to_send(now) == CLIPS_IN_FLIGHT
        attempt, now = trial.attempt, now + seconds
        trial.clip_sent(seconds, now)
        trial.clip_returned(attempt, now + 1)  # of an attempt that is over
    assert trial.result is not None
    assert trial.result.fps == 8
    assert "60.00 s at 24 fps, 30.00 s at 12 fps, 20.00 s at 8 fps" in trial.result.notice


def test_a_given_rate_is_kept_and_the_notice_says_what_it_costs() -> None:
    assert choose_given_rate(24, 0.3, 12) == RateChoice(24, 0.3, "")
    slow = choose_given_rate(24, 0.9, 12)
    assert slow.fps == 24
    assert "--fps 24 is kept" in slow.notice
    assert "0.90 s" in slow.notice


@given(st.floats(0.0, 1.0), st.integers(1, 24))
def test_any_machine_gets_the_highest_rate_that_it_holds(cost: float, clip_frames: int) -> None:
    choice, _ = simulate(cost, clip_frames)

    def share(fps: int) -> float:
        """Of a clip's duration that a clip takes."""
        return cost * fps

    def most(fps: int) -> float:
        return MAX_SHARE_AT_LOWEST if fps == FRAME_RATES[-1] else MAX_SHARE

    # A margin for rounding on either side of the limit.
    surely = [fps for fps in FRAME_RATES if share(fps) <= most(fps) * 0.999]
    perhaps = [fps for fps in FRAME_RATES if share(fps) <= most(fps) * 1.001]
    assert max(surely, default=FRAME_RATES[-1]) <= choice.fps <= max(perhaps, default=FRAME_RATES[-1])
    if surely:
        assert "too slow" not in choice.notice
