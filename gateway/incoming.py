"""A client's messages on their way into its session."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING

from gateway.core.event_rate import EventRate
from gateway.core.session import SessionCore
from gateway.http_connection import HttpConnection
from gateway.session_host import SessionHost
from protocol.wire.browser import BrowserError, parse_pcm, parse_pcm16
from protocol.wire.controls import Change, Flush, Interrupt, Record, SayText, Shown, parse_control
from protocol.wire.phrases import phrase

if TYPE_CHECKING:
    from gateway.connection import Connection

#: Messages a second that no honest client reaches: one of 1.3 ms of sound each.
MESSAGES_PER_SECOND = 800
CHANGES_PER_SECOND = 10


class Incoming:
    """Takes the messages of one client.

    Those of version 2 are taken where the websocket's bytes are read. A microphone sends 100 chunks a second
    and a page acknowledges 24 frames: to wake a task for each would be a large part of what a session costs.

    Args:
        connection: the client's.
        host: the gateway.
        ws: the websocket.
    """

    def __init__(self, connection: Connection, host: SessionHost, ws: HttpConnection) -> None:
        self._connection = connection
        self._host = host
        self._ws = ws
        self._message_rate = EventRate(1.0)
        self._change_rate = EventRate(1.0)
        #: Bytes that came.
        self.bytes = 0

    async def run(self, core: SessionCore) -> None:
        """Take messages until the client leaves. Raises BrowserError for one that cannot be taken."""
        # Version 1 is slowed down by not being read. Version 2's acknowledgements come this way too, so only
        # the bound on waiting speech ends it.
        if self._connection.version > 1:
            self._ws.hand_messages_to(partial(self._take_at_once, core))
        try:
            async for message in self._ws:
                self._take(core, message)
                while core.input.full and self._connection.version == 1:
                    await asyncio.sleep(0.05)
        finally:
            self._ws.hand_messages_to(None)

    def _take_at_once(self, core: SessionCore, message: str | bytes) -> None:
        try:
            self._take(core, message)
        except Exception as error:  # this is the websocket's own call: the session's tasks end by it
            self._connection.end(error)

    def _take(self, core: SessionCore, message: str | bytes) -> None:
        connection = self._connection
        if connection.ended:  # another connection may have the session now, and sends this speech again
            return
        now = time.monotonic()
        self._message_rate.add(now)
        if self._message_rate.per_second(now) > MESSAGES_PER_SECOND:
            raise BrowserError("too_fast", f"more than {MESSAGES_PER_SECOND} messages a second")
        self.bytes += len(message)
        if isinstance(message, str):
            self._take_text(core, message, now)
            return
        core.add_speech((parse_pcm16 if core.options.int16 else parse_pcm)(message), now)
        if core.speech_due:
            connection.wake_speech()

    def _take_text(self, core: SessionCore, text: str, now: float) -> None:
        connection = self._connection
        if connection.version == 1:
            raise BrowserError(
                "text_not_allowed", "version 1 takes binary float32 PCM; text needs echomimic-live.v2"
            )
        message = parse_control(text)
        if isinstance(message, Shown):
            if core.frame_shown(message, now):
                connection.wake_sender()
        elif isinstance(message, Flush):
            core.end_speech()
            connection.wake_speech()
        elif isinstance(message, SayText):
            core.says.add(message)
            connection.wake_sender()
            connection.wake_speech()
        elif isinstance(message, (Change, Interrupt)):
            self._change_rate.add(now)
            if self._change_rate.per_second(now) > CHANGES_PER_SECOND:
                raise BrowserError("too_fast", f"more than {CHANGES_PER_SECOND} new epochs a second")
            if isinstance(message, Change):
                connection.change_options(message.options)
            else:
                connection.interrupt(core, now)
        elif isinstance(message, Record):
            self._host.record(connection, message.action)
        elif message is not None:  # a type that this version does not know is ignored
            raise BrowserError("bad_message", phrase("message_hello_again"))
