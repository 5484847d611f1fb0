"""One websocket client: its socket on one side, its SessionCore on the other.

Each client has three tasks. `Incoming.run` takes its messages, `_speech_loop` hands its sound to the audio
worker, and `_send_loop` sends what is due. A fault of one client ends as a BrowserError that this client is
told. It touches no other client.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

from gateway.core.options import SessionLimits, SessionOptions
from gateway.core.session import SessionCore
from gateway.door.guard import Grant
from gateway.http_connection import HttpConnection
from gateway.incoming import Incoming
from gateway.session_host import SessionHost
from gateway.texts import ready_fields, status_fields
from gateway.waiting import at_most, cancel_tasks, read_and_drop, wait_for_event
from protocol.wire.browser import BrowserError, encode_error, encode_text
from protocol.wire.controls import ClientHello, Options, Resume, parse_control, parse_options
from protocol.wire.figures import Histogram

logger = logging.getLogger(__name__)

#: Seconds within which version 2's first message must come.
HELLO_WITHIN = 5.0
STATUS_EVERY = 1.0
#: Bytes that may wait in a connection's buffer before its frames are dropped.
FULL_BUFFER = 1 << 19
#: The same at least, for a client whose frames are small.
LEAST_FULL_BUFFER = 1 << 16
#: Seconds of speech from one `credit` to the next, while more than that waits.
CREDIT_EVERY = 5.0
#: Seconds to wait for a client to take the error that ends it.
ERROR_WITHIN = 2.0


class Connection:
    """A client from its opening handshake to its close."""

    def __init__(
        self,
        host: SessionHost,
        ws: HttpConnection,
        grant: Grant,
        name: str,
        version: int,
        limits: SessionLimits,
        first_frames: Histogram,
    ) -> None:
        """Serve nothing yet.

        Args:
            host: the gateway.
            ws: the websocket, open.
            grant: the client's rights.
            name: the session's id.
            version: of the wire, 1 or 2.
            limits: the session's.
            first_frames: where the delays of all sessions' first frames are counted.
        """
        self.name = name
        self.version = version
        self.grant = grant
        self.options = Options()
        #: None until the client's options are known.
        self.core: SessionCore | None = None
        #: When a session whose client's connection is lost is over. None while the client is there.
        self.parked_until: float | None = None
        self._resumed = False
        self.bytes_out = 0
        self._began = time.monotonic()
        self._host = host
        self._ws = ws
        self._limits = limits
        self._first_frames = first_frames
        #: Takes the client's messages.
        self.incoming = Incoming(self, host, ws)
        #: The last `credit` that the client was told.
        self._told_credit = 0
        #: When the next `status` is due.
        self._status_at = 0.0
        #: JSON texts that wait for `_send_loop`.
        self._texts: deque[str] = deque()
        #: Wakes `_speech_loop`: there is new speech, or its end.
        self._speech_came = asyncio.Event()
        #: Wakes `_send_loop`: something may be due.
        self._output_due = asyncio.Event()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> BrowserError | None:
        """Serve the client until it leaves. Returns the error that it was told, if one ended it."""
        try:
            hello = await self._receive_hello()
            self.options = hello.options
            self.core = self._resumed_core(hello.resume) or self._new_core(hello.resume)
            self.core.live, self.core.life.on = hello.live, hello.idle_life
            self._queue_ready_text()
            await self._run_loops(self.core)
        except ConnectionClosed:
            pass
        except BrowserError as error:
            await self._close_with(error)
            return error
        return None

    def _new_core(self, resume: Resume | None) -> SessionCore:
        """A new session, or the one of a gateway that is gone: the same name, in its next epoch."""
        chosen = self._host.resolve_options(self.options, self.grant)
        epoch, position = (resume.epoch + 1, resume.position) if self._resumed and resume else (0, 0)
        self.core = SessionCore(
            self.name,
            self.version,
            chosen,
            self._limits,
            time.monotonic(),
            self._first_frames,
            epoch=epoch,
            position=position,
            repeat_to=self._host.full_rate if self.options.fps is None else 0,
        )
        self.core.says.engine, self.core.says.why_none = self._host.voice.engine, self._host.voice.why
        self._host.admit(self)
        return self.core

    def _resumed_core(self, resume: Resume | None) -> SessionCore | None:
        if resume is None:
            return None
        own_name = self.name
        core = self._host.take_over(self, resume)
        self._resumed = self.name != own_name
        if core is None:
            return None
        self.core = core
        core.resume(resume, time.monotonic())
        if not core.outage and self._host.resolve_options(self.options, self.grant) != core.options:
            self.begin_new_epoch()
        return core

    def park(self, until: float) -> None:
        """The client's connection is lost: keep the session for it until then."""
        assert self.core is not None
        self.core.parked, self.core.fatal = True, None
        self.parked_until = until

    @property
    def lost(self) -> bool:
        """Whether the client is gone without a goodbye: a reload, a network that failed."""
        return self.version > 1 and self._ws.close_code != CloseCode.NORMAL_CLOSURE

    @property
    def ended(self) -> bool:
        """Whether this session is being ended, or another connection has it now."""
        return self._ended.done()

    def silent_for(self, now: float) -> float:
        """As `SessionCore.silent_for`."""
        return 0.0 if self.core is None else self.core.silent_for(now)

    def end(self, error: Exception) -> None:
        """End this session. Another error than a BrowserError is a fault of this program."""
        if not self._ended.done():
            self._ended.set_exception(error)

    def wake_speech(self) -> None:
        """There is speech for the audio worker, or its end."""
        self._speech_came.set()

    def wake_sender(self) -> None:
        """Something may be due for the client."""
        self._output_due.set()

    def change_options(self, options: Options) -> None:
        """Go on with other options in a new epoch. Raises BrowserError for options that cannot be had."""
        assert self.core is not None
        merged = self.options.merged(options)
        if self.core.outage:
            self.options = merged  # nobody knows now whether they can be had: the next epoch begins with them
            return
        chosen = self._host.resolve_options(merged, self.grant)
        self.options = merged
        if chosen != self.core.options:
            self._restart(self.core, chosen)
        self._queue_ready_text()
        self._speech_came.set()

    def begin_outage(self, why: str) -> None:
        """A stage has no worker: keep the client's speech, let its sound go on, and say `why`."""
        assert self.core is not None
        self.core.begin_outage(why)
        self.tell_status()

    def tell_status(self) -> None:
        """Send a `status` at once."""
        self._status_at = 0.0
        self._output_due.set()

    def begin_new_epoch(self) -> None:
        """Go on with workers that know nothing of the session. Raises BrowserError if it cannot be had."""
        assert self.core is not None
        self._restart(self.core, self._host.resolve_options(self.options, self.grant))
        self._queue_ready_text()
        self._speech_came.set()

    def _restart(self, core: SessionCore, options: SessionOptions) -> None:
        self._host.close_epoch(self.name, core.epoch)
        core.restart(options, time.monotonic())

    # ---- the client's side

    async def _receive_hello(self) -> ClientHello:
        """Version 1 names its options in the address, version 2 in its first message."""
        if self.version == 1:
            request = self._ws.request
            query = urlsplit(request.path if request else "").query
            return ClientHello(parse_options(dict(parse_qsl(query))))
        try:
            text = await asyncio.wait_for(self._ws.recv(), HELLO_WITHIN)
        except asyncio.TimeoutError:
            raise BrowserError("no_hello", f"no hello within {HELLO_WITHIN:g} s") from None
        hello = parse_control(text) if isinstance(text, str) else None
        if not isinstance(hello, ClientHello):
            raise BrowserError("no_hello", 'the first message must be JSON with "type": "hello"')
        return hello

    async def _run_loops(self, core: SessionCore) -> None:
        """Run the three loops until one of them ends, or `end` is called."""
        loops: list[Coroutine[Any, Any, None]] = [
            self.incoming.run(core),
            self._speech_loop(core),
            self._send_loop(core),
        ]
        tasks: list[asyncio.Future[None]] = [asyncio.ensure_future(loop) for loop in loops]
        try:
            done, _ = await asyncio.wait([*tasks, self._ended], return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()
        finally:
            await cancel_tasks(tasks)
            # asyncio complains about a future whose error nobody has asked for.
            if self._ended.done():
                self._ended.exception()
            else:
                self._ended.cancel()

    def tell(self, kind: str, **fields: object) -> None:
        """Send a text. A client of version 1 takes none."""
        if self.version > 1:
            self._texts.append(encode_text(kind, **fields))
            self._output_due.set()

    def interrupt(self, core: SessionCore, now: float) -> None:
        """Drop everything at once: here, in the stages, and at the client by the answer."""
        self._host.close_epoch(self.name, core.epoch)
        self._host.close_texts(self.name, core.says.turn)
        self._texts.append(encode_text("interrupted", **core.interrupt(now)))
        self._output_due.set()
        self._speech_came.set()

    def _queue_news(self, core: SessionCore) -> None:
        """Texts about the avatar's speech, and about how much more may be sent of a long one."""
        for kind, fields in core.take_events():
            self._texts.append(encode_text(kind, **fields))
        step = CREDIT_EVERY * core.options.sample_rate
        if core.input.seconds_waiting > CREDIT_EVERY and core.credit - self._told_credit > step:
            self._told_credit = core.credit
            self._texts.append(encode_text("credit", until=core.credit))

    async def _speech_loop(self, core: SessionCore) -> None:
        while not self._ended.done():  # another connection may have the session now
            now = time.monotonic()
            self._host.send_speech(core.next_pcm(now, self._host.pcm_waiting(self.name)))
            if (sentence := core.says.next_sentence(core.options.sample_rate, now)) is not None:
                self._host.speak(sentence)
            await wait_for_event(self._speech_came, core.seconds_until_pcm(now))

    async def _send_loop(self, core: SessionCore) -> None:
        self._status_at = time.monotonic() + STATUS_EVERY
        while not self._ended.done():
            now = time.monotonic()
            if self.version > 1 and now >= self._status_at:
                self._status_at = now + STATUS_EVERY
                fields = status_fields(core, self._host.notice(), self._host.stage_times(), now)
                self._texts.append(encode_text("status", **fields))
            messages = core.next_messages(now, self._buffer_has_room())
            if self.version > 1:
                self._queue_news(core)
            while self._texts:
                await self._send(self._texts.popleft())
            for message in messages:
                await self._send(message.data)
            seconds = core.seconds_until_message(now)
            await wait_for_event(
                self._output_due, min(STATUS_EVERY, STATUS_EVERY if seconds is None else seconds)
            )

    async def _send(self, data: str | bytes) -> None:
        await self._ws.send(data)
        self.bytes_out += len(data)

    def _buffer_has_room(self) -> bool:
        full = FULL_BUFFER
        if self.version == 1:  # it acknowledges nothing, so a second of frames that wait has to tell
            a_second = self.bytes_out / max(1.0, time.monotonic() - self._began)
            full = min(full, max(LEAST_FULL_BUFFER, int(a_second)))
        return self._ws.transport.get_write_buffer_size() < full

    def _queue_ready_text(self) -> None:
        if self.version > 1 and self.core is not None:
            token = self._host.resume_token(self)
            self._told_credit = self.core.credit
            fields = ready_fields(self.core, self._host.notice(), token, self._resumed)
            self._texts.append(encode_text("ready", **fields))
            self._output_due.set()

    async def _close_with(self, error: BrowserError) -> None:
        """Tell the client the error and close the connection."""
        logger.info("session %s ends: %s", self.name, error.close_reason)
        # Messages that still come are read and dropped: with bytes unread, the kernel's reset would overtake
        # the error.
        rest = asyncio.ensure_future(read_and_drop(self._ws))
        if self.version > 1:
            # A client that reads nothing is not waited for.
            await at_most(ERROR_WITHIN, self._ws.send(encode_error(error)))
        await self._ws.close(error.close_code, error.close_reason)
        await cancel_tasks([rest])
