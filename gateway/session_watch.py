"""Looks at the workers and at every session's limits, ten times a second."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from gateway.connection import Connection
from gateway.door.guard import Guard
from gateway.outages import OUTAGES, outage_of
from gateway.recording.recordings import Recordings
from gateway.sessions import SessionRegistry
from gateway.stages import StageBoard
from protocol.hop.results import PROBE_AFTER, RESTING_PROBE_AFTER, ResultServer
from protocol.process.c_allocator import ReturnTimer, return_freed_memory
from protocol.wire.browser import BrowserError
from protocol.wire.controls import Options
from protocol.wire.phrases import phrase

logger = logging.getLogger(__name__)

#: Seconds between two looks, and the same while there is no session: a little more than the wait of the last
#: stage's loop, which rests then. Its heartbeat brings the look forward.
CHECK_EVERY, CALM_CHECK_EVERY = 0.1, 1.455
#: Seconds by which a look is late from which on this process was kept from running.
MOST_LATE = 0.4


class SessionWatch:
    """Ends sessions over their limits, and carries all of them through the outage of a stage.

    Args:
        board: the state of the stages.
        sessions: every session with its connection.
        guard: says whose rights are lost.
        results: knows the workers that are gone.
        recordings: of the sessions.
    """

    def __init__(
        self,
        board: StageBoard,
        sessions: SessionRegistry,
        guard: Guard,
        results: ResultServer,
        recordings: Recordings,
    ) -> None:
        self._board = board
        self._sessions = sessions
        self._guard = guard
        self._results = results
        self._recordings = recordings
        #: The stage that has no worker.
        self._outage = ""
        #: When this process looked at its sessions last.
        self._looked = time.monotonic()
        #: Seconds from then to the next look, at most.
        self._next_in = self.seconds_to_check()
        self._return_timer = ReturnTimer()
        self._told_notice = ""

    def notice(self) -> str:
        """The outage, or the reason for a lower frame rate, for clients to show. Empty when all is well."""
        return OUTAGES.get(self._outage) or self._board.rate_notice

    def seconds_to_check(self) -> float:
        """The time until the next `check`, at most."""
        return CHECK_EVERY if self._sessions.all() or self._outage else CALM_CHECK_EVERY

    def check(self) -> None:
        """Look at the workers, and at the limits of every session."""
        now = time.monotonic()
        # Frames may wait in the sockets after a pause of this process, so it makes nothing late.
        was_away, self._looked = now - self._looked > self._next_in + MOST_LATE, now
        self._next_in = self.seconds_to_check()
        if was_away:
            return
        self.forget_lost_workers(PROBE_AFTER if self._sessions.all() else RESTING_PROBE_AFTER)
        self._board.forget_silent_workers(now)
        self._check_outage()
        self._tell_new_notice()
        for connection in self._sessions.all():
            self.guarded(connection, partial(self._check_session, connection, now))
        self._recordings.tick(now)
        if self._return_timer.is_due(now):
            return_freed_memory()

    def forget_lost_workers(self, probe_after: float = 0.0) -> None:
        """Try the connections of workers that have said nothing for so many seconds, and forget the lost."""
        for stage, worker in self._results.lost_workers(probe_after):
            logger.warning("%s %s is gone", stage, worker)
            self._board.forget_worker(stage, worker)

    def guarded(self, connection: Connection, work: Callable[[], None]) -> None:
        """Do something for one session. An error of it ends this one and no other."""
        try:
            work()
        except BrowserError as error:
            self._end_with(connection, error)
        except Exception:
            logger.exception("session %s has a fault", connection.name)
            self._end_with(connection, BrowserError("failed", phrase("failed_gateway")))

    def _check_outage(self) -> None:
        """Keep the sessions' speech here while a stage has no worker, and go on when it has one again."""
        before, self._outage = self._outage, outage_of(self._board)
        if self._outage == before:
            return
        for connection in self._sessions.all():
            if self._outage:
                self.guarded(connection, partial(connection.begin_outage, OUTAGES[self._outage]))
            elif connection.core is not None and connection.core.outage:  # it began before this moment
                self.guarded(connection, connection.begin_new_epoch)

    def _tell_new_notice(self) -> None:
        before, self._told_notice = self._told_notice, self.notice()
        if self._told_notice != before:
            for connection in self._sessions.all():
                connection.tell_status()

    def _check_session(self, connection: Connection, now: float) -> None:
        core = connection.core
        assert core is not None
        if connection.parked_until is not None and now > connection.parked_until:
            self._sessions.end(connection)
            return
        if (refusal := self._guard.lost(connection.grant, now - core.began_at)) is not None:
            raise BrowserError(refusal.code, refusal.message)
        core.check_limits(now)
        if core.fatal:
            raise core.fatal
        if 0 < self._board.full_fps < core.options.shape.fps:
            connection.change_options(Options())
        connection.wake_sender()

    def _end_with(self, connection: Connection, error: BrowserError) -> None:
        if connection.parked_until is None:
            connection.end(error)
        else:
            self._sessions.end(connection)
