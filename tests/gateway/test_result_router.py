"""Results of the stages find their session, and clips are confirmed to their senders."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.result_router import ResultRouter
from gateway.stages import StageBoard
from gateway.voices import VOICE_STAGE
from protocol.wire.messages import Failed, Frame, Status
from tests.gateway.stand_ins import NotedConnection, NotedSessions


class Router:
    """A router with one session, "a", and notes of all that it does."""

    def __init__(self, fresh: bool = True, complete: bool = False) -> None:
        self.failed: list[str] = []
        self.confirmed: list[tuple[Any, ...]] = []
        self.previewed: list[object] = []
        core = SimpleNamespace(
            add_frame=lambda frame, now: fresh,
            clip_complete=lambda epoch, seq: complete,
            clip_failed=lambda failed, now: self.failed.append("clip"),
            says=SimpleNamespace(sentence_failed=lambda *_: self.failed.append("sentence")),
        )
        self.connection = NotedConnection("a", core)
        self.board = StageBoard(5.0)
        results: Any = SimpleNamespace(confirm_clip=lambda *clip: self.confirmed.append(clip))
        sessions: Any = NotedSessions(self.connection)
        previews: Any = SimpleNamespace(take_frame=self.previewed.append, take_failure=self.previewed.append)
        totals: Any = SimpleNamespace(add_failure=lambda failed: None)
        self.router = ResultRouter(results, self.board, sessions, previews, totals)

    def take(self, message: Status | Failed | Frame) -> None:
        self.router.take((b"sender", message))


def frame(session: str, index: int) -> Frame:
    return Frame(session, 1, 2, index, 12, 0, 8, 8, b"picture")


@pytest.mark.parametrize(
    ("session", "index", "fresh", "complete", "confirmed"),
    [
        ("a", 3, True, False, False),  # more of the clip is waited for
        ("a", 3, True, True, True),  # the clip is complete
        ("a", 3, False, True, False),  # a double, and its sender has more
        ("a", 11, False, True, True),  # a double, and the last that the sender has
        ("gone", 3, True, True, False),
        ("gone", 11, True, True, True),
    ],
)
def test_a_clip_is_confirmed_when_nobody_waits_for_more(
    session: str, index: int, fresh: bool, complete: bool, confirmed: bool
) -> None:
    made = Router(fresh, complete)
    made.take(frame(session, index))
    assert made.confirmed == ([(b"sender", session, 1, 2)] if confirmed else [])
    assert made.connection.told == (["wake_sender"] if session == "a" else [])
    assert len(made.previewed) == 1


def test_a_failure_is_the_sentences_or_the_clips() -> None:
    made = Router()
    made.take(Failed("a", 1, 2, VOICE_STAGE, "no such voice", False))
    assert made.failed == ["sentence"] and made.connection.told == ["wake_speech", "wake_sender"]
    made.take(Failed("a", 1, 2, "gpu_worker", "out of memory", False))
    made.take(Failed("gone", 1, 2, "gpu_worker", "out of memory", False))
    assert made.failed == ["sentence", "clip"]


def test_a_status_goes_to_the_board() -> None:
    made = Router()
    made.take(Status("gpu_worker", "g", True, {}, {}))
    assert made.board.states()["gpu_worker"] == "warm"
