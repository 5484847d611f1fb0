"""The rate in service, on a machine that is only arithmetic: it follows fast, and does not swing."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gpu_worker.rate.governor import FIRST_PATIENCE, MOST_PATIENCE, SERVED_RATES
from gpu_worker.rate.service import ServiceLog
from tests.gpu_worker.machine_model import Machine


def cost(full: float, fixed: float = 0.1) -> Callable[[int], float]:
    """Seconds for a clip: `full` for 12 frames, of which the part `fixed` does not depend on the frames."""
    return lambda frames: full * (fixed + (1 - fixed) * frames / 12)


def half_speed(begin: float, end: float) -> Callable[[float], float]:
    return lambda now: 0.5 if begin <= now < end else 1.0


@settings(max_examples=12, deadline=None)
@given(st.floats(0.33, 0.42), st.floats(0.0, 0.1), st.floats(0.0, 0.5))
def test_half_speed_for_16_seconds(full: float, fixed: float, phase: float) -> None:
    begin = 20 + phase
    machine = Machine(cost(full, fixed), speed=half_speed(begin, begin + 16))
    machine.run(60)
    slow = [clip for clip in machine.clips if begin - 0.5 < clip[0] < begin + 16]
    assert all(delay <= 2.0 for _, delay, _ in slow)
    assert len(slow) >= 31  # each clip has pictures
    told, lower = machine.changes[0]
    assert told - begin <= 1.3 and lower == 12
    settled = [delay for arrived, delay, _ in machine.clips if begin + 17.5 < arrived]
    assert all(delay <= 0.6 for delay in settled)  # normal again at once
    assert machine.rate_at(begin + 16 + FIRST_PATIENCE + 4) >= 12
    assert len(machine.changes) <= 5


@settings(max_examples=12, deadline=None)
@given(st.floats(0.05, 0.42), st.sampled_from(SERVED_RATES[1:]))
def test_a_busy_moment_at_the_start_does_not_decide_the_day(full: float, start: int) -> None:
    machine = Machine(cost(full, 0.0), start=start)
    machine.run(15)
    assert machine.rate_at(15) == 24
    assert all(delay <= 0.6 for _, delay, _ in machine.clips)


@settings(max_examples=12, deadline=None)
@given(st.floats(0.02, 3.0), st.floats(0.0, 0.6))
@example(1.125, 0.0625)  # falls behind slowly at 12 fps
def test_a_steady_machine_gets_a_steady_rate(full: float, fixed: float) -> None:
    machine = Machine(cost(full, fixed))
    machine.run(120)
    early = [at for at, _ in machine.changes if at < 20]
    late = [at for at, _ in machine.changes if at >= 20]
    assert len(early) <= 7
    assert len(late) <= 8  # each failed rise doubles the wait


@settings(max_examples=10, deadline=None)
@given(
    st.floats(0.1, 0.6),
    st.lists(st.tuples(st.floats(0.5, 8.0), st.floats(0.25, 1.0)), min_size=4, max_size=30),
)
def test_whatever_the_machine_does_the_rate_does_not_swing(
    full: float, course: list[tuple[float, float]]
) -> None:
    bounds = [sum(part[0] for part in course[:n]) for n in range(len(course) + 1)]

    def speed(now: float) -> float:
        return next((part[1] for end, part in zip(bounds[1:], course, strict=True) if now < end), 1.0)

    machine = Machine(cost(full), speed=speed)
    machine.run(bounds[-1] + 20)
    rates = [24, *(rate for _, rate in machine.changes)]
    rises = [at for (at, rate), before in zip(machine.changes, rates, strict=False) if rate > before]
    assert all(b - a >= FIRST_PATIENCE for a, b in pairwise(rises))
    assert all(rate in SERVED_RATES for rate in rates)


def test_other_work_that_comes_and_goes_is_met_less_and_less_often() -> None:
    # Slow for 4 of every 8 seconds: each rise fails.
    machine = Machine(cost(0.4), speed=lambda now: 0.4 if now % 8 < 4 else 1.0)
    machine.run(300)
    rises = [
        at
        for (at, rate), (_, before) in zip(machine.changes[1:], machine.changes, strict=False)
        if rate > before
    ]
    first, last = [at for at in rises if at < 60], [at for at in rises if at >= 240]
    assert len(last) < len(first)
    assert len(last) <= 60 / MOST_PATIENCE + 4


def test_more_sessions_share_the_machine_at_a_lower_rate() -> None:
    machine = Machine(cost(0.3), sessions=lambda now: 1 if now < 10 or now > 40 else 2)
    machine.run(70)
    assert machine.rate_at(9) == 24
    assert machine.rate_at(14) <= 12 and machine.rate_at(39) <= 12
    assert machine.rate_at(50) == 24
    assert max(delay for _, delay, _ in machine.clips) <= 2.0


def test_a_rate_that_only_looks_too_high_is_tried() -> None:
    # By the time of half the frames, 24 fps would take all of the machine. In truth there is room.
    machine = Machine(cost(0.42, fixed=0.3), start=12)
    machine.run(60)
    assert machine.rate_at(60) == 24 and len(machine.changes) == 1


@pytest.mark.parametrize(("seconds", "rises"), [(0.55, {2}), (0.42, {2}), (0.3, {1, 2})])
@pytest.mark.parametrize("cores", [1, 2])
def test_one_core_leaves_time_for_the_other_stages(seconds: float, rises: set[int], cores: int) -> None:
    machine = Machine(cost(seconds), start=12, cores=cores)
    machine.run(60)
    assert (len(machine.changes) > 0) == (cores in rises)


def test_nothing_changes_while_nobody_speaks() -> None:
    machine = Machine(cost(0.7), sessions=lambda now: 1 if now < 10 else 0)
    machine.run(11)
    before = list(machine.changes)
    machine.run(200)
    assert machine.changes == before and before[-1][1] == 12


@pytest.mark.parametrize("at_once", [2, 4])
def test_clips_that_come_at_once_are_not_late(at_once: int) -> None:
    log = ServiceLog()
    for seq in range(3):
        log.arrived(("a", 0, seq), 12, 24, seq * 0.5)
        log.done(("a", 0, seq), seq * 0.5 + 0.3)
    for seq in range(3, 3 + at_once):  # the network stood still, then they came
        log.arrived(("a", 0, seq), 12, 24, 5.0)
    assert log.late(5.4) == pytest.approx(0.4)
    log.done(("a", 0, 3), 5.4)
    assert log.late(5.8) == pytest.approx(0.3)


def test_a_slow_first_clip_is_no_reason() -> None:
    log = ServiceLog()
    for seq in range(4):
        log.arrived(("a", 0, seq), 12, 24, seq * 0.5)
    log.done(("a", 0, 0), 2.0)  # its avatar was loaded
    log.done(("a", 0, 1), 2.3)
    assert log.late(2.3) <= 0.3
    assert not log.times


def test_time_in_which_the_process_stood_still_does_not_count() -> None:
    log = ServiceLog()
    for seq in range(3):
        log.arrived(("a", 0, seq), 12, 24, seq * 0.5)
        log.done(("a", 0, seq), seq * 0.5 + 0.3)
    log.arrived(("a", 0, 3), 12, 24, 1.5)
    log.stand_still(4.0)
    assert log.late(5.7) == pytest.approx(0.2)
    log.keep_only(lambda key: False)
    assert log.late(9.0) == 0.0
