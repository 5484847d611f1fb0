"""The gateway's regular look at workers and sessions: outages, notices, limits, and pauses of the process."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.session_watch import CHECK_EVERY, MOST_LATE, SessionWatch
from gateway.stages import STAGES, StageBoard
from protocol.wire.browser import BrowserError
from protocol.wire.messages import Status
from tests.gateway.stand_ins import NotedConnection, NotedSessions


def session(name: str) -> NotedConnection:
    shape = SimpleNamespace(fps=24)
    core = SimpleNamespace(
        began_at=0.0,
        fatal=None,
        outage="",
        options=SimpleNamespace(shape=shape),
        check_limits=lambda now: None,
    )
    return NotedConnection(name, core)


class Watched:
    """A watch over two sessions, with every stage warm."""

    def __init__(self) -> None:
        self.board = StageBoard(60.0)
        for stage in STAGES:
            self.warm(stage)
        self.first, self.second = session("first"), session("second")
        self.sessions = NotedSessions(self.first, self.second)
        self.lost: list[tuple[str, str]] = []
        sessions: Any = self.sessions
        guard: Any = SimpleNamespace(lost=lambda grant, age: None)
        results: Any = SimpleNamespace(lost_workers=lambda probe_after: self.lost)
        recordings: Any = SimpleNamespace(tick=lambda now: None)
        self.watch = SessionWatch(self.board, sessions, guard, results, recordings)

    def warm(self, stage: str) -> None:
        self.board.take_status(Status(stage, "w", True, {}, {}), time.monotonic())


@pytest.fixture
def watched() -> Watched:
    return Watched()


def test_a_lost_worker_is_an_outage_until_another_is_warm(watched: Watched) -> None:
    watched.lost = [("gpu_worker", "w")]
    watched.watch.check()
    assert watched.watch.notice()
    assert watched.first.told == ["begin_outage", "tell_status", "wake_sender"]
    watched.lost, watched.first.core.outage = [], "told"
    watched.warm("gpu_worker")
    watched.watch.check()
    assert not watched.watch.notice()
    assert watched.first.told[3:] == ["begin_new_epoch", "tell_status", "wake_sender"]
    assert watched.second.told[3:] == ["tell_status", "wake_sender"], "it began after the outage"


def test_an_error_of_one_session_ends_no_other(watched: Watched) -> None:
    watched.first.core.fatal = BrowserError("slow_client", "nothing is shown")
    watched.watch.check()
    assert watched.first.errors == [watched.first.core.fatal]
    assert not watched.second.errors and watched.second.told == ["wake_sender"]

    def fail(now: float) -> None:
        raise RuntimeError("a fault")

    watched.second.core.check_limits = fail
    watched.watch.check()
    (error,) = watched.second.errors
    assert isinstance(error, BrowserError) and error.code == "failed"


def test_a_parked_session_ends_when_its_time_is_over(watched: Watched) -> None:
    watched.first.parked_until = time.monotonic() - 1
    watched.second.parked_until = time.monotonic() + 60
    watched.watch.check()
    assert watched.sessions.ended == ["first"] and not watched.first.errors


def test_a_pause_of_the_process_makes_nothing_late(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    watched.first.core.fatal = BrowserError("slow_client", "nothing is shown")
    later = time.monotonic() + CHECK_EVERY + 2 * MOST_LATE
    monkeypatch.setattr(time, "monotonic", lambda: later)
    watched.watch.check()
    assert not watched.first.errors
    watched.watch.check()
    assert watched.first.errors
