"""A bounded number of connections, which also answer requests that the websockets library drops."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, ClassVar
from weakref import WeakSet

from websockets.asyncio.server import ServerConnection
from websockets.datastructures import Headers
from websockets.exceptions import InvalidMessage
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import Event

from gateway.answers import FIXED_HEADERS
from gateway.core.event_rate import EventRate
from gateway.request_body import BodyError, BodyIntake
from protocol.wire.phrases import phrase

#: Pings and pongs a second that no honest client reaches. The gateway itself sends one in ten seconds.
CONTROL_FRAMES_PER_SECOND = 50
#: Bytes in which a flood of small frames takes a few milliseconds to read.
MOST_READ_AT_ONCE = 4096
NOT_HTTP = "This is no HTTP/1.1 request that this server can read."
NO_BODY = "This address takes no request body. Values belong into the query."
#: Seconds within which a request's head has to be there.
HEAD_SECONDS = 10.0
#: Addresses that take a body end with one of these, behind whatever `--root-path` there is.
BODY_PATHS = ("/avatars", "/avatars/align")


def takes_body(path: str) -> bool:
    """Whether a request of this path may have a body."""
    return path.endswith(BODY_PATHS)


class HttpConnection(ServerConnection):
    """A connection that answers requests which the library drops: broken ones, and those with a body.

    Attributes:
        most: connections at once. Further ones are cut at once.
        open_ones: those that are open.
    """

    most: ClassVar[int]
    open_ones: ClassVar[WeakSet[HttpConnection]]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Takes the messages at once, or None where `recv` gives them.
        self._take_message: Callable[[str | bytes], None] | None = None
        self._told = False
        self._control_rate = EventRate(1.0)
        self._intake = BodyIntake(takes_body)
        self._head_timer: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Take bytes a little at a time: the library reads every frame in them before it tells of one."""
        data = self._intake.feed(data)
        for start in range(0, len(data), MOST_READ_AT_ONCE):
            if self.transport.is_closing():
                return
            super().data_received(data[start : start + MOST_READ_AT_ONCE])
        if self._intake.holds_back:
            self.transport.pause_reading()

    async def read_body(self, most: int, seconds: float) -> bytes:
        """The request's body.

        Args:
            most: bytes that are read.
            seconds: within which all of it has to come.

        Raises:
            BodyError: it is longer, comes too slowly, or its client is gone.
        """
        if self._intake.length > most:
            raise BodyError(phrase("body_long", bytes=self._intake.length, most=most), too_long=True)
        whole = self._intake.whole(self.loop)
        if not whole.done():
            if self._intake.expects:
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            self.transport.resume_reading()
        try:
            return await asyncio.wait_for(asyncio.shield(whole), seconds)
        except asyncio.TimeoutError:
            raise BodyError(phrase("body_late", seconds=f"{seconds:.0f}")) from None
        except asyncio.CancelledError:
            if not whole.cancelled():
                raise
            raise BodyError("its client is gone") from None

    def drop_body(self) -> None:
        """Read the rest of the body and forget it: a client that still sends reads no answer."""
        if self._intake.length and not self.transport.is_closing():
            self._intake.drop()
            self.transport.resume_reading()

    def process_event(self, event: Event) -> None:
        """Take a request or a frame. A flood of pings ends the connection."""
        if isinstance(event, Frame) and event.opcode in (Opcode.PING, Opcode.PONG):
            now = self.loop.time()
            self._control_rate.add(now)
            if self._control_rate.per_second(now) > CONTROL_FRAMES_PER_SECOND:
                reason = f"more than {CONTROL_FRAMES_PER_SECOND} pings a second"
                self.protocol.fail(CloseCode.POLICY_VIOLATION, reason)
                self.send_data()
                self.transport.close()  # the rest of the flood is not even read
                return
        if (message := self._whole_message(event)) is None or self._take_message is None:
            super().process_event(event)
        else:
            self._take_message(message)

    def hand_messages_to(self, take: Callable[[str | bytes], None] | None) -> None:
        """Give each message to `take` as it comes, without the wake-up of a task that calls `recv`.

        Two kinds of messages still come by `recv`: those of several frames, and those behind a message that
        waits there. So all messages stay in order.

        Args:
            take: takes a message, and raises nothing. None: `recv` gives all of them.
        """
        self._take_message = take

    def _whole_message(self, event: Event) -> str | bytes | None:
        """The message in this frame, or None where `recv` has to give it."""
        if self._take_message is None or not isinstance(event, Frame) or not event.fin:
            return None
        if event.opcode not in (Opcode.TEXT, Opcode.BINARY) or self.recv_messages.frames.queue:
            return None
        data = bytes(event.data)
        if event.opcode is Opcode.BINARY:
            return data
        try:
            return data.decode()
        except UnicodeDecodeError:  # `recv` ends the connection
            return None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or cut it where too many are open."""
        super().connection_made(transport)
        if len(self.open_ones) >= self.most:
            self.transport.abort()
        else:
            self.open_ones.add(self)
            # The library's own limit is longer, since it covers a body and the answer too.
            self._head_timer = self.loop.call_later(HEAD_SECONDS, self._end_without_head)

    def _end_without_head(self) -> None:
        if self.request is None:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room."""
        self.open_ones.discard(self)
        if self._head_timer is not None:
            self._head_timer.cancel()
        self._intake.drop()
        super().connection_lost(exc)

    def send_data(self) -> None:
        """Send what is due: before the end that follows a request that cannot be read, the answer to it."""
        trouble = self.protocol.handshake_exc
        if isinstance(trouble, InvalidMessage) and not self._told:
            self._told = True
            if not isinstance(trouble.__cause__, EOFError):  # the client left in the middle of its request
                self.transport.write(unreadable_response(trouble.__cause__).serialize())
        super().send_data()


def connections_within(most: int) -> type[HttpConnection]:
    """The class of one server's connections, of which at most this many are open at once."""
    return type("BoundedConnection", (HttpConnection,), {"most": most, "open_ones": WeakSet()})


def unreadable_response(cause: BaseException | None) -> Response:
    """The answer to a request that the library refused because of `cause`."""
    # A chunked body is not implemented. One with a length has no class of its own.
    has_body = isinstance(cause, NotImplementedError) or str(cause) == "unsupported request body"
    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE if has_body else HTTPStatus.BAD_REQUEST
    body = f"{NO_BODY if has_body else NOT_HTTP}\n".encode()
    headers = Headers({**FIXED_HEADERS, "Connection": "close", "Cache-Control": "no-store"})
    headers["Content-Type"] = "text/plain; charset=utf-8"
    headers["Content-Length"] = str(len(body))
    return Response(int(status), status.phrase, headers, body)
