"""The sessions of the gateway by name: who is let in, who is waited for, who takes over from whom."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from gateway.connection import Connection
from gateway.core.session import SessionCore
from gateway.metrics import SessionTotals
from gateway.resume_tokens import ResumeTokens
from protocol.process.settings import Settings
from protocol.wire.browser import BrowserError
from protocol.wire.controls import Resume

logger = logging.getLogger(__name__)

#: Seconds for which a session waits for a client whose connection is lost.
RESUME_WITHIN = 30.0
#: Seconds without a sample after which a session may have to make room. A microphone always sends some.
SILENT_AFTER = 10.0


class SessionRegistry:
    """Every session that runs, with the connection that has it. One whose client is lost is parked."""

    def __init__(
        self,
        settings: Settings,
        totals: SessionTotals,
        close_epoch: Callable[[str, int], None],
        capacity: Callable[[], int],
    ) -> None:
        """No session yet.

        Args:
            settings: the gateway's.
            totals: figures of all sessions.
            close_epoch: tells the stages that an epoch of a session is over.
            capacity: sessions that can be at once.

        Raises:
            EndpointError: the key of the resume tokens cannot be had.
        """
        self._totals = totals
        self._close_epoch = close_epoch
        self._capacity = capacity
        self._tokens = ResumeTokens(settings.run_dir)
        self._sessions: dict[str, Connection] = {}

    def get(self, name: str) -> Connection | None:
        """The connection that has this session."""
        return self._sessions.get(name)

    def all(self) -> list[Connection]:
        """Every session's connection."""
        return list(self._sessions.values())

    def resume_token(self, connection: Connection) -> str:
        """The token with which the client can come back to its session."""
        return self._tokens.sign(connection.name, connection.grant.token_id)

    def take_over(self, connection: Connection, resume: Resume) -> SessionCore | None:
        """Give the session that the client comes back to into this connection's hands."""
        name = self._tokens.session_of(resume.token, connection.grant.token_id)
        if name is None:
            return None
        connection.name = name
        before = self._sessions.get(name)
        if before is None or before.core is None:
            return None
        self._sessions[name] = connection
        connection.incoming.bytes, connection.bytes_out = before.incoming.bytes, before.bytes_out
        if before.parked_until is None:
            before.end(BrowserError("moved", "the session goes on at another connection"))
        logger.info("session %s goes on at another connection", name)
        return before.core

    def admit(self, connection: Connection) -> None:
        """Count the session in. Raises BrowserError("busy")."""
        self._make_room()
        capacity = self._capacity()
        if len(self._sessions) >= capacity:
            raise BrowserError("busy", f"{len(self._sessions)} of {capacity} sessions run; try again soon")
        full = connection.grant.full_quota(other.grant for other in self._sessions.values())
        if full is not None:
            raise BrowserError("busy", f"{full.most} sessions of this token run, and it is for no more")
        self._sessions[connection.name] = connection
        self._totals.begun[connection.version] += 1
        owner = f", token {connection.grant.name}" if connection.grant.name else ""
        logger.info(
            "session %s begins: version %d, %s%s",
            connection.name,
            connection.version,
            connection.core,
            owner,
        )

    def _make_room(self) -> None:
        """Sessions of clients that are gone, then of silent ones, give their places to one who comes."""
        parked = [one for one in self._sessions.values() if one.parked_until is not None]
        for connection in sorted(parked, key=lambda one: one.parked_until or 0.0):
            if len(self._sessions) < self._capacity():
                return
            self.end(connection)
        now = time.monotonic()
        silent = [one for one in self._sessions.values() if one.silent_for(now) > SILENT_AFTER]
        if len(self._sessions) >= self._capacity() and silent:
            connection = max(silent, key=lambda one: one.silent_for(now))
            connection.end(BrowserError("idle", "nothing was said for a while, and somebody waited"))
            self.end(connection)

    def leave(self, connection: Connection, may_come_back: bool) -> None:
        """A client is gone. Its session waits for it if it was lost and not ended."""
        if self._sessions.get(connection.name) is not connection:  # another one took the session over
            return
        if connection.lost and may_come_back:
            logger.info("session %s has lost its client and waits for it", connection.name)
            connection.park(time.monotonic() + RESUME_WITHIN)
        else:
            self.end(connection)

    def end(self, connection: Connection) -> None:
        """The session is over, whether its client is there or not."""
        del self._sessions[connection.name]
        assert connection.core is not None
        self._totals.add_ended(connection, time.monotonic())
        logger.info("session %s is over: %s", connection.name, connection.core)
        self._close_epoch(connection.name, connection.core.epoch)
