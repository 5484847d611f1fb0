"""The size of pictures in service, on a machine that is only arithmetic: it goes before any frame does."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gpu_worker.rate.governor import FIRST_SIZE_PATIENCE, MOST_SIZE_PATIENCE
from gpu_worker.rate.grades import FINE_COSTS, Grade, grades
from tests.gpu_worker.machine_model import Machine


def cost(full: float, of: int, fixed: float = 0.1) -> Callable[[int], float]:
    """Seconds for a clip: `full` for `of` frames, of which the part `fixed` does not depend on the frames."""
    return lambda frames: full * (fixed + (1 - fixed) * frames / of)


def at_speed(speed: float, begin: float, end: float) -> Callable[[float], float]:
    return lambda now: speed if begin <= now < end else 1.0


def test_the_grades_from_the_best_down() -> None:
    assert grades((24, 12), sizes=False) == [Grade(24), Grade(12)]
    assert grades((24, 12), sizes=True) == [Grade(24, fine=True), Grade(24), Grade(12)]
    assert sorted(grades((24, 12, 8), sizes=True), reverse=True) == grades((24, 12, 8), sizes=True)
    assert Grade(24, fine=True).cost(Grade(24)) == FINE_COSTS
    assert Grade(24).cost(Grade(24, fine=True)) == pytest.approx(1 / FINE_COSTS)


@settings(max_examples=5, deadline=None)
@given(st.sampled_from((4, 6, 12)), st.floats(0.6, 0.75), st.floats(0.0, 0.5))
def test_the_size_goes_before_the_rate_and_comes_back(frames: int, share: float, phase: float) -> None:
    """A machine that takes 0.75 to 0.94 of its time for larger pictures, and too much at 0.8 of its speed."""
    begin = 20 + phase
    machine = Machine(
        cost(share * frames / 24, frames), speed=at_speed(0.7, begin, begin + 20), frames=frames, fine=True
    )
    machine.run(begin + 20)
    assert machine.sizes and machine.sizes[0][1] is False
    assert machine.sizes[0][0] - begin < 6.0
    before_rate = [at for at, _ in machine.changes]
    assert not before_rate or before_rate[0] >= machine.sizes[0][0]
    machine.run(begin + 140)
    assert machine.rate_at(machine.now) == 24


def test_a_little_load_costs_the_size_and_no_frame() -> None:
    machine = Machine(cost(0.10, 4), speed=at_speed(0.7, 20, 40), frames=4, fine=True)
    machine.run(39)
    assert [fine for _, fine in machine.sizes] == [False]
    assert machine.changes == []
    assert {frames for _, _, frames in machine.clips} == {4}
    assert max(delay for _, delay, _ in machine.clips) < 0.5
    machine.run(40 + FIRST_SIZE_PATIENCE - 1)
    assert machine.governor.grade == Grade(24)
    machine.run(40 + FIRST_SIZE_PATIENCE + 3)
    assert machine.governor.grade == Grade(24, fine=True)
    machine.run(200)
    assert [fine for _, fine in machine.sizes] == [False, True] and machine.changes == []
    assert machine.log.late(machine.now) < 0.2 and len(machine.clips) > 1190  # each clip came


def test_a_heavy_load_costs_both_at_once() -> None:
    machine = Machine(cost(0.10, 4), speed=at_speed(0.25, 20, 40), frames=4, fine=True)
    machine.run(40)
    assert machine.sizes[0][1] is False and machine.sizes[0][0] < 21.5
    assert machine.changes[0][1] < 24 and machine.changes[0][0] < 22.5
    machine.run(100)
    assert machine.governor.grade == Grade(24, fine=True)


def test_the_size_comes_after_the_highest_rate() -> None:
    machine = Machine(cost(0.06, 4), start=12, frames=4, fine=False)
    machine.run(60)
    assert [fps for _, fps in machine.changes] == [24]
    assert [fine for _, fine in machine.sizes] == [True]
    assert machine.sizes[0][0] >= machine.changes[0][0] + FIRST_SIZE_PATIENCE


@settings(max_examples=4, deadline=None)
@given(st.floats(0.3, 1.2), st.floats(0.0, 0.5), st.sampled_from((4, 12)), st.booleans())
def test_a_steady_machine_gets_a_steady_size(share: float, fixed: float, frames: int, fine: bool) -> None:
    machine = Machine(cost(share * frames / 24, frames, fixed), frames=frames, fine=fine)
    machine.run(240)
    late = [at for at, _ in machine.sizes if at >= 20]
    assert len(late) <= 8
    if share * machine.fine_costs > 1:  # it is never held, and each try doubles the wait
        assert len([at for at, fine in machine.sizes if fine]) <= 5


def test_more_sessions_get_smaller_pictures_rather_than_fewer() -> None:
    machine = Machine(
        cost(0.06, 4), sessions=lambda now: 2 if 20 <= now < 60 else 1, frames=4, fine=True, fine_costs=1.5
    )
    machine.run(59)
    assert machine.governor.grade == Grade(24) and machine.changes == []
    machine.run(90)
    assert machine.governor.grade == Grade(24, fine=True)


def test_one_size_stays() -> None:
    machine = Machine(cost(0.05, 4), frames=4)
    machine.run(120)
    assert machine.sizes == [] and machine.governor.grade == Grade(24)
    assert MOST_SIZE_PATIENCE > FIRST_SIZE_PATIENCE
