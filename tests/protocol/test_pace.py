"""How long a stage's loop waits: with work, and when there has been none for a while."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from gateway.session_watch import CALM_CHECK_EVERY
from protocol.hop.aio import EARLY
from protocol.hop.dispatch import RESTING_SILENT_AFTER
from protocol.hop.results import RESTING_PROBE_AFTER
from protocol.process.pace import REST_AFTER, LoopPace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_loop_without_work_rests_until_there_is_work_again() -> None:
    clock = Clock()
    pace = LoopPace(last_stage=False, dead_after=5.0, clock=clock)
    working = pace.wait_ms
    clock.now += 0.9 * REST_AFTER
    assert not pace.resting and pace.wait_ms == working
    pace.note_work()
    clock.now += 0.9 * REST_AFTER
    assert not pace.resting
    clock.now += 0.2 * REST_AFTER
    assert pace.resting and pace.wait_ms > 3 * working
    pace.note_work()
    assert not pace.resting and pace.wait_ms == working


@given(st.floats(1.0, 600.0), st.booleans())
def test_three_heartbeats_fit_in_the_silence_that_ends_a_worker(dead_after: float, last_stage: bool) -> None:
    clock = Clock()
    pace = LoopPace(last_stage=last_stage, dead_after=dead_after, clock=clock)
    clock.now += 2 * REST_AFTER
    assert 3 * pace.wait_ms <= 1000 * dead_after + 3
    # A round comes at each wait, and the first one at which a Status is due has it.
    rounds = math.ceil(1000 * pace.status_every / pace.wait_ms)
    assert rounds * pace.wait_ms < 1000 * dead_after


def test_the_waits_of_resting_loops_fit_together() -> None:
    clock = Clock()
    first, last = (LoopPace(last_stage=last, dead_after=5.0, clock=clock) for last in (False, True))
    clock.now += 2 * REST_AFTER
    assert 2 * first.wait_ms < 1000 * RESTING_SILENT_AFTER
    assert 2.4 * first.wait_ms < 1000 * RESTING_PROBE_AFTER  # a Status comes in every second round
    assert last.wait_ms < 1000 * last.status_every < 2 * last.wait_ms
    # A heartbeat of the last stage ends the waits of the others, and brings the gateway's tick forward.
    assert last.wait_ms < first.wait_ms
    assert 1000 * (CALM_CHECK_EVERY - EARLY) < last.wait_ms < 1000 * CALM_CHECK_EVERY
