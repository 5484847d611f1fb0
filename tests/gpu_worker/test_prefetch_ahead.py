"""The prefetch thread works ahead for clips that follow, and no clip waits for it. No process, no models."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from gpu_worker.prefetch import Prefetch
from protocol.process.compute import Compute
from protocol.process.metrics import Metrics
from protocol.process.settings import load_settings
from protocol.wire.messages import Clip
from tests.gpu_worker.worker_process import ToyEngine, clip


class LookingAhead(ToyEngine):
    """Has two pieces to do for each clip that follows, each once `may_go` is set."""

    def __init__(self) -> None:
        super().__init__(load_settings([]))
        self.done: list[tuple[str, int]] = []
        self.may_go = threading.Event()
        self.fails = False

    def prepare(self, clip: Clip) -> Clip:
        self.done.append(("prepare", clip.seq))
        return clip

    def prepare_ahead(self, clip: Clip) -> bool:
        if self.fails:
            raise ValueError("no features")
        self.may_go.wait(5)
        self.done.append(("ahead", clip.seq))
        return self.done.count(("ahead", clip.seq)) < 2


def running(engine: LookingAhead) -> tuple[Prefetch, Compute, Callable[[int], None]]:
    compute = Compute(lambda: None)
    prefetch = Prefetch(engine, compute, lambda: None, Metrics())

    def until(clips: int) -> None:
        """Runs the loop until so many clips are made and the prefetch thread has nothing to do."""
        made, ends = 0, time.monotonic() + 10
        while (made < clips or prefetch.busy_ahead) and time.monotonic() < ends:
            prefetch.advance()
            made += sum(prefetch.outcomes_of(output)[0].error is None for output in compute.take())
            time.sleep(0.001)
        assert made == clips

    return prefetch, compute, until


def test_pieces_for_the_next_clip_are_done_until_none_is_left() -> None:
    engine = LookingAhead()
    engine.may_go.set()
    prefetch, _, until = running(engine)
    prefetch.enqueue(clip("a", 0))
    until(1)
    assert engine.done == [("prepare", 0), ("ahead", 0), ("ahead", 0)]
    assert prefetch.idle


def test_a_clip_waits_for_one_piece_at_most() -> None:
    engine = LookingAhead()
    prefetch, compute, until = running(engine)
    prefetch.enqueue(clip("a", 0))
    ends = time.monotonic() + 5
    while not (outputs := compute.take()) and time.monotonic() < ends:
        prefetch.advance()
        time.sleep(0.001)
    assert [prefetch.outcomes_of(output)[0].error for output in outputs] == [None]
    prefetch.enqueue(clip("b", 1))
    prefetch.advance()
    engine.may_go.set()
    until(1)
    assert engine.done[:3] == [("prepare", 0), ("ahead", 0), ("prepare", 1)]


def test_sessions_that_have_ended_are_not_looked_ahead_for() -> None:
    engine = LookingAhead()
    prefetch, _, until = running(engine)
    engine.may_go.set()
    prefetch.enqueue(clip("a", 0))
    until(1)
    prefetch.close("a", 0)
    engine.done.clear()
    prefetch.advance()
    assert engine.done == []


def test_a_failure_ahead_stops_nothing() -> None:
    engine = LookingAhead()
    engine.fails = True
    prefetch, _, until = running(engine)
    for seq in range(3):
        prefetch.enqueue(clip("a", seq))
        until(1)
    assert engine.done == [("prepare", seq) for seq in range(3)]
