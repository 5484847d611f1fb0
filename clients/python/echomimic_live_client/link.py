"""A session's connections, one after the other: greeting, sending, receiving, and coming back."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed

from echomimic_live_client import wire
from echomimic_live_client.connection import READY_WITHIN, TIMEOUTS, Network, reason_of
from echomimic_live_client.errors import ClientError, ConnectionLost, SessionEnded
from echomimic_live_client.inbox import Inbox
from echomimic_live_client.outbox import Outbox
from echomimic_live_client.says import Say, Says
from echomimic_live_client.signal import Signal
from echomimic_live_client.wire import FrameMessage, Interrupted, Options, Ready, Resume, Status

#: Seconds between two messages of sound, at least: the server bounds the messages of a second.
MESSAGE_EVERY = 0.004
#: Seconds before the first try to come back, and the longest between two tries.
BACK_OFF_FIRST, BACK_OFF_MOST = 0.2, 4.0


class Link:
    """Keeps one session going over its connections.

    Args:
        network: how to reach the server.
        options: wishes for the session.
        inbox: takes the pictures and the sound.
        live: whether the sound is a live one, of which nobody wants to hear what is old.
        acknowledge_all: whether pictures count as shown when they come.
        retry_for: seconds for which a lost connection is tried again.
        on_text: is called with every text of the server.

    Attributes:
        network: how to reach the server.
        options: wishes for the session, for the next connection too.
        outbox: the sound that goes up.
        ready: the last `ready`, None before the first.
        status: the last `status`, None before the first.
        reconnects: connections that were lost and found again.
        moved_at: when the last picture or sound came or went, of `time.monotonic`.
        status_at: when the last status came.
        failure: the reason for which the session is over.
        news: wakes those who wait for anything of the above.
        says: the texts whose end was not told.
        hold_sound: no sound goes out while this is set.
        interrupted: the last answer to an interruption.
    """

    def __init__(
        self,
        network: Network,
        options: Options,
        inbox: Inbox,
        *,
        live: bool,
        acknowledge_all: bool,
        retry_for: float,
        on_text: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.options = options
        self.inbox = inbox
        self.outbox = Outbox(wire.PTS_RATE)
        self.ready: Ready | None = None
        self.status: Status | None = None
        self.reconnects = 0
        self.moved_at = self.status_at = 0.0
        self.failure: BaseException | None = None
        self.news = Signal()
        self.says = Says(self.news)
        self.hold_sound = False
        self.interrupted: Interrupted | None = None
        self.network = network
        self._live = live
        self._acknowledge_all = acknowledge_all
        self._retry_for = retry_for
        self._on_text = on_text
        #: Number, of all samples pushed, of the first one of the server's session.
        self._offset = 0
        self._send_due = Signal()
        self._texts: list[str] = []
        #: Texts to be spoken, each with the number of the sample before which it comes.
        self._says_due: deque[tuple[int, str]] = deque()
        self._acknowledgements: dict[str, str] = {}
        #: Whether an interruption is not answered yet.
        self._interrupting = False
        #: Pictures handed out, and how many that were when the server last found this client too slow.
        self._handed_out = 0
        self._slow_at = 0
        self._socket: ClientConnection | None = None
        self._running: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect for the first time.

        Raises:
            ClientError: it cannot be done, or the server takes no session.
        """
        self._socket = await self._connect(None)
        self._running = asyncio.create_task(self._run())

    async def close(self) -> None:
        """Say goodbye: the server keeps nothing of the session."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        if self._socket is not None:
            await self._socket.close()

    def send_text(self, text: str) -> None:
        """Send a text before any more sound."""
        self._texts.append(text)
        self._send_due.wake()

    def frame_shown(self, epoch: int, seq: int, index: int) -> None:
        """Tell the server that this picture was shown, or passed over."""
        self._acknowledgements["shown"] = wire.shown(epoch, seq, index)
        self._handed_out += 1
        self._send_due.wake()

    def frame_taken(self, epoch: int, seq: int, index: int) -> None:
        """Tell the server that the program has this picture."""
        self._acknowledgements["taken"] = wire.taken(epoch, seq, index)
        self._handed_out += 1
        self._send_due.wake()

    def interrupt(self) -> None:
        """Drop everything that waits or is under way. Sound that is pushed later is of the next epoch."""
        self.outbox.drop()
        self.inbox.interrupt()
        self._interrupting = True
        self.says.interrupt()
        self._says_due.clear()
        self.send_text(wire.interrupt())

    def say(self, text: str, voice: str) -> Say:
        """Have a text spoken behind the sound that was pushed before."""
        say = self.says.begin(text, voice)
        if self.outbox.waiting:
            self.outbox.end_speech()
        self._says_due.append((self.outbox.pushed, say.wire_text))
        self._send_due.wake()
        return say

    def wake_sender(self) -> None:
        """There may be sound to send."""
        self._send_due.wake()

    # ---- connections

    async def _run(self) -> None:
        try:
            while self._socket is not None:
                try:
                    lost = await self._serve(self._socket)
                finally:
                    await self._socket.close()
                self._socket = await self._come_back(lost)
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # the program's next call raises it
            self.failure = error
            self.says.end_all("lost", "the session is over")
        finally:
            self.news.wake()

    async def _connect(self, resume: Resume | None) -> ClientConnection:
        """Open a connection and greet. Raises ClientError."""
        socket = await self.network.open()
        try:
            await socket.send(wire.hello(self.options, resume, self._live))
            # The hello has the newest options.
            self._texts = [wire.interrupt()] if self._interrupting else []
            self._says_due.clear()  # the answer tells which the server does not know
            while True:
                data = await asyncio.wait_for(socket.recv(), READY_WITHIN)
                if isinstance(data, str) and self._take_text(data, greeting=True):
                    return socket
        except TIMEOUTS:
            await socket.close()
            raise ConnectionLost(f"no answer to the greeting within {READY_WITHIN:g} s") from None
        except ConnectionClosed as closed:
            raise reason_of(closed) from None
        except BaseException:
            await socket.close()
            raise

    async def _serve(self, socket: ClientConnection) -> ClientError:
        """Serve a connection until it is lost. Returns the reason, and raises one that ends the session."""
        loops = [
            asyncio.ensure_future(self._receive_loop(socket)),
            asyncio.ensure_future(self._send_loop(socket)),
        ]
        try:
            # Sending only ever ends with the connection, and receiving tells why that ended.
            await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait(loops[:1], timeout=READY_WITHIN)
            for loop in loops:
                if loop.done():
                    loop.result()
        except ConnectionClosed as closed:
            return self._may_come_back(reason_of(closed))
        except SessionEnded as ended:
            return self._may_come_back(ended)
        finally:
            for loop in loops:
                loop.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
        return ConnectionLost("the connection broke off")

    def _may_come_back(self, reason: ClientError) -> ClientError:
        """The reason for which a connection ended. Raises it where it ends the session."""
        if reason.code == "slow_client" and self._handed_out > self._slow_at:
            # The program stood still for a while. One that takes no pictures at all is told.
            self._slow_at = self._handed_out
            return reason
        if reason.code in ("connection_lost", "shutdown"):
            return reason
        raise reason

    async def _come_back(self, lost: ClientError) -> ClientConnection:
        """Connect again, with waits that grow. Raises the last reason when the time is over."""
        until = time.monotonic() + self._retry_for
        pause = BACK_OFF_FIRST
        while True:
            wait = max(pause * random.uniform(0.5, 1.0), getattr(lost, "retry_after", 0.0))
            if time.monotonic() + wait > until:
                raise lost
            await asyncio.sleep(wait)
            pause = min(2 * pause, BACK_OFF_MOST)
            try:
                socket = await self._connect(self._resume())
            except ClientError as error:
                if not error.try_again:
                    raise
                lost = error
                continue
            self.reconnects += 1
            return socket

    def _resume(self) -> Resume:
        """The part of the session that is here."""
        assert self.ready is not None
        return Resume(
            token=self.ready.resume,
            epoch=self.inbox.epoch,
            heard=self.inbox.heard,
            seen=self.inbox.seen,
            position=self.outbox.returned - self._offset,
        )

    # ---- up

    async def _send_loop(self, socket: ClientConnection) -> None:
        while True:
            if self._acknowledgements:
                await socket.send(self._acknowledgements.pop(next(iter(self._acknowledgements))))
            elif self._texts:
                await socket.send(self._texts.pop(0))
            elif self.hold_sound:
                await self._send_due.wait()
            elif self.outbox.next_is_end():
                await socket.send(wire.flush())
            elif self._says_due and self._says_due[0][0] <= self.outbox.sent:
                await socket.send(self._says_due.popleft()[1])
            elif (samples := self.outbox.next_samples()) is not None:
                await socket.send(wire.pcm_bytes(samples, self.options.pcm == "s16"))
                self.moved_at = time.monotonic()
                self.news.wake()
                await asyncio.sleep(MESSAGE_EVERY)
            else:
                await self._send_due.wait()

    # ---- down

    async def _receive_loop(self, socket: ClientConnection) -> None:
        while True:
            data = await socket.recv()
            if isinstance(data, str):
                self._take_text(data)
            else:
                self._take_binary(data)
            self.news.wake()

    def _take_binary(self, data: bytes) -> None:
        message = wire.decode(data)
        self.moved_at = time.monotonic()
        if isinstance(message, FrameMessage):
            self.inbox.add_frame(message)
            if self._acknowledge_all:
                self.frame_shown(message.epoch, message.seq, message.index)
            return
        position = self.inbox.add_sound(message)
        if position is not None:
            self.outbox.came_back(position)
            self._send_due.wake()

    def _take_text(self, data: str, *, greeting: bool = False) -> bool:
        """Take a text of the server. Returns whether it is a `ready`. Raises SessionEnded for an `error`."""
        fields = wire.parse_text(data)
        if self._on_text is not None:
            self._on_text(fields)
        kind = str(fields["type"])
        if kind == "error":
            raise SessionEnded(str(fields.get("code")), str(fields.get("message")))
        if kind == "status":
            self.status, self.status_at = wire.parse_status(fields), time.monotonic()
        self._texts += self.says.take_text(kind, fields, greeting)
        if kind == "interrupted":
            self.interrupted = wire.parse_interrupted(fields)
            self._interrupting = False
            self.inbox.interrupted(self.interrupted.epoch)
        if kind == "ready":
            ready = wire.parse_ready(fields)
            if greeting:
                self._go_on(ready)
            self._begin(ready)
        return kind == "ready"

    def _go_on(self, ready: Ready) -> None:
        """Another connection answered: its server takes the sound from `ready.position` on."""
        if self.ready is not None and self.ready.session != ready.session:
            self._offset = self.outbox.returned  # a new session: nothing is left of the one before
        # Dropped sound may not have arrived: what is pushed next comes right after what the server has.
        self._offset = max(self._offset, self.outbox.returned - ready.position)
        self.outbox.go_on_at(self._offset + ready.position)

    def _begin(self, ready: Ready) -> None:
        """The session goes on as `ready` says."""
        self.ready = ready
        if ready.sample_rate != self.outbox.rate:
            self.outbox.drop(ready.sample_rate)
        self.inbox.begin(ready, self._offset)
