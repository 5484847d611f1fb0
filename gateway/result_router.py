"""Brings each result of the stages to the session that waits for it."""

from __future__ import annotations

import time

from gateway.avatars.preview import PreviewMaker
from gateway.metrics import SessionTotals
from gateway.sessions import SessionRegistry
from gateway.stages import StageBoard
from gateway.voices import VOICE_STAGE
from protocol.hop.results import Result, ResultServer
from protocol.wire.messages import Failed, Frame, SpokenPart, Status


class ResultRouter:
    """Takes every message that comes from the stages.

    Args:
        results: the socket that they come from, and on which clips are confirmed.
        board: takes the workers' Status.
        sessions: every session with its connection.
        previews: takes the frames and failures of new avatars' previews.
        totals: counts failures.
    """

    def __init__(
        self,
        results: ResultServer,
        board: StageBoard,
        sessions: SessionRegistry,
        previews: PreviewMaker,
        totals: SessionTotals,
    ) -> None:
        self._results = results
        self._board = board
        self._sessions = sessions
        self._previews = previews
        self._totals = totals

    def take(self, event: tuple[bytes, Result]) -> None:
        """Take a message and the identity of its sender's socket."""
        sender, message = event
        now = time.monotonic()
        if isinstance(message, Status):
            self._board.take_status(message, now)
        elif isinstance(message, Failed):
            self._take_failure(message, now)
        elif isinstance(message, SpokenPart):
            self._take_spoken(message, now)
        else:
            self._take_frame(sender, message, now)

    def _take_failure(self, failed: Failed, now: float) -> None:
        self._totals.add_failure(failed)
        self._previews.take_failure(failed)
        connection = self._sessions.get(failed.session)
        if connection is not None and connection.core is not None:
            if failed.stage == VOICE_STAGE:
                connection.core.says.sentence_failed(failed.epoch, failed.seq, failed.reason)
                connection.wake_speech()
            else:
                connection.core.clip_failed(failed, now)
            connection.wake_sender()

    def _take_spoken(self, part: SpokenPart, now: float) -> None:
        connection = self._sessions.get(part.session)
        if connection is not None and connection.core is not None:
            connection.core.says.take_part(part, now)
            connection.wake_speech()

    def _take_frame(self, sender: bytes, frame: Frame, now: float) -> None:
        self._previews.take_frame(frame)
        connection = self._sessions.get(frame.session)
        fresh, wanted = False, False
        if connection is not None and connection.core is not None:
            fresh = connection.core.add_frame(frame, now)
            wanted = not connection.core.clip_complete(frame.epoch, frame.seq)
            connection.wake_sender()
        # A clip that nobody waits for is confirmed as well, once its sender has sent all of it: otherwise the
        # sender would keep it and send it again.
        if not wanted and (fresh or frame.index == frame.count - 1):
            self._results.confirm_clip(sender, frame.session, frame.epoch, frame.seq)
