"""One websocket client: its socket on one side, its SessionCore on the other.

Three tasks a client: `_read` takes what it sends, `_feed` hands sound on to the audio worker, `_write` sends
what is due. Whatever is wrong with a client ends as a BrowserError that it is told, and touches no other.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Coroutine
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed

from gateway.core.figures import Rate
from gateway.core.session import Choice, Limits, SessionCore
from protocol.wire.browser import (
    BrowserError,
    Change,
    ClientHello,
    Flush,
    Options,
    Shown,
    encode_error,
    encode_text,
    parse_control,
    parse_options,
    parse_pcm,
)
from protocol.wire.figures import Histogram
from protocol.wire.messages import Pcm

log = logging.getLogger(__name__)

HELLO_WITHIN = 5.0
STATUS_EVERY = 1.0
#: Bytes that may wait in a connection's buffer before its pictures are dropped.
FULL_BUFFER = 1 << 19
#: Messages a second that no honest client reaches: one of 1.3 ms of sound each.
MESSAGES_PER_SECOND = 800
CHANGES_PER_SECOND = 10


class House(Protocol):
    """What a connection needs of the gateway."""

    def choose(self, options: Options) -> Choice:
        """What a session with these options runs with. Raises BrowserError."""

    def notice(self) -> str:
        """What clients should know about the rate; empty when there is nothing."""

    def admit(self, connection: Connection) -> None:
        """Count the session in. Raises BrowserError("busy" or "not_ready")."""

    def queued(self, session: str) -> int:
        """How many pieces of this session wait for an audio worker."""

    def send_speech(self, work: list[Pcm]) -> None:
        """Hand work to the audio workers."""

    def forget_epoch(self, session: str, epoch: int) -> None:
        """Tell the stages that this epoch is over."""


class Connection:
    """A client from its opening handshake to its close. `version` of the wire is 1 or 2."""

    def __init__(
        self,
        house: House,
        ws: ServerConnection,
        name: str,
        version: int,
        limits: Limits,
        first_frames: Histogram,
    ) -> None:
        self.name = name
        self.version = version
        self.options = Options()
        self.core: SessionCore | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self._house = house
        self._ws = ws
        self._limits = limits
        self._first_frames = first_frames
        self._messages = Rate(1.0)
        self._changes = Rate(1.0)
        self._texts: deque[str] = deque()
        self._heard = asyncio.Event()
        self._due = asyncio.Event()
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> BrowserError | None:
        """Serve the client until it leaves; the error that it was told, if one ended it."""
        try:
            self.options = await self._greet()
            choice = self._house.choose(self.options)
            now = time.monotonic()
            self.core = SessionCore(self.name, self.version, choice, self._limits, now, self._first_frames)
            self._house.admit(self)
            self._say_ready()
            await self._serve(self.core)
        except ConnectionClosed:
            pass
        except BrowserError as error:
            await self._tell(error)
            return error
        return None

    def end(self, error: BrowserError) -> None:
        """End this session from outside."""
        if not self._ended.done():
            self._ended.set_exception(error)

    def wake(self) -> None:
        """Something may be due for the client."""
        self._due.set()

    def change(self, options: Options) -> None:
        """Go on with other options, in a new epoch. Raises BrowserError for options that cannot be had."""
        assert self.core is not None
        merged = self.options.merged(options)
        choice = self._house.choose(merged)
        self.options = merged
        if choice != self.core.choice:
            self._house.forget_epoch(self.name, self.core.epoch)
            self.core.restart(choice)
        self._say_ready()
        self._heard.set()

    # ---- the client's side

    async def _greet(self) -> Options:
        if self.version == 1:
            request = self._ws.request
            return parse_options(dict(parse_qsl(urlsplit(request.path if request else "").query)))
        try:
            text = await asyncio.wait_for(self._ws.recv(), HELLO_WITHIN)
        except asyncio.TimeoutError:
            raise BrowserError("no_hello", f"no hello within {HELLO_WITHIN:g} s") from None
        hello = parse_control(text) if isinstance(text, str) else None
        if not isinstance(hello, ClientHello):
            raise BrowserError("no_hello", 'the first message must be JSON with "type": "hello"')
        return hello.options

    async def _serve(self, core: SessionCore) -> None:
        loops: list[Coroutine[Any, Any, None]] = [self._read(core), self._feed(core), self._write(core)]
        tasks: list[asyncio.Future[None]] = [asyncio.ensure_future(loop) for loop in loops]
        try:
            done, _ = await asyncio.wait([*tasks, self._ended], return_when=asyncio.FIRST_COMPLETED)
            for future in done:
                future.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if self._ended.done():
                self._ended.exception()
            else:
                self._ended.cancel()

    async def _read(self, core: SessionCore) -> None:
        async for message in self._ws:
            now = time.monotonic()
            self._messages.add(now)
            if self._messages.value(now) > MESSAGES_PER_SECOND:
                raise BrowserError("too_fast", f"more than {MESSAGES_PER_SECOND} messages a second")
            self.bytes_in += len(message)
            if isinstance(message, str):
                self._control(core, message, now)
                continue
            core.hear(parse_pcm(message), now)
            self._heard.set()
            while core.full and self.version == 1:
                # version 2's acknowledgements come this way too, so there only the bound ends it
                await asyncio.sleep(0.05)

    def _control(self, core: SessionCore, text: str, now: float) -> None:
        if self.version == 1:
            raise BrowserError(
                "text_not_allowed", "version 1 takes binary float32 PCM; text needs echomimic-live.v2"
            )
        message = parse_control(text)
        if isinstance(message, Shown):
            core.shown(message, now)
            self._due.set()
        elif isinstance(message, Flush):
            core.flush_soon()
            self._heard.set()
        elif isinstance(message, Change):
            self._changes.add(now)
            if self._changes.value(now) > CHANGES_PER_SECOND:
                raise BrowserError("too_fast", f"more than {CHANGES_PER_SECOND} changes of options a second")
            self.change(message.options)
        else:
            raise BrowserError("bad_message", "hello comes once, as the first message")

    async def _feed(self, core: SessionCore) -> None:
        while True:
            now = time.monotonic()
            self._house.send_speech(core.work(now, self._house.queued(self.name)))
            await _wait(self._heard, core.wait_work(now))

    async def _write(self, core: SessionCore) -> None:
        status_at = time.monotonic() + STATUS_EVERY
        while True:
            now = time.monotonic()
            if self.version > 1 and now >= status_at:
                status_at = now + STATUS_EVERY
                self._texts.append(encode_text("status", **status_fields(core, self._house.notice(), now)))
            while self._texts:
                await self._send(self._texts.popleft())
            for message in core.outgoing(now, self._room()):
                await self._send(message.data)
            wait = core.wait_outgoing(now)
            await _wait(self._due, min(STATUS_EVERY, STATUS_EVERY if wait is None else wait))

    async def _send(self, data: str | bytes) -> None:
        await self._ws.send(data)
        self.bytes_out += len(data)

    def _room(self) -> bool:
        return self._ws.transport.get_write_buffer_size() < FULL_BUFFER

    def _say_ready(self) -> None:
        if self.version > 1 and self.core is not None:
            self._texts.append(encode_text("ready", **ready_fields(self.core, self._house.notice())))
            self._due.set()

    async def _tell(self, error: BrowserError) -> None:
        log.info("session %s ends: %s", self.name, error.close_reason)
        # what it still sends is read and thrown away: with bytes unread, a reset would overtake the error
        rest = asyncio.ensure_future(_discard(self._ws))
        if self.version > 1:
            # a client that reads nothing is not waited for
            await _within(2.0, self._ws.send(encode_error(error)))
        await self._ws.close(error.close_code, error.close_reason)
        rest.cancel()
        await asyncio.gather(rest, return_exceptions=True)


def ready_fields(core: SessionCore, notice: str) -> dict[str, object]:
    """Fields of the `ready` text: what the session runs with."""
    choice = core.choice
    return {
        "session": core.name,
        "epoch": core.epoch,
        "avatar": choice.avatar,
        "pose": choice.pose,
        "fps": choice.shape.fps,
        "clip_frames": choice.shape.frames,
        "sample_rate": choice.sample_rate,
        "width": choice.width,
        "height": choice.height,
        "notice": notice,
        "shown_within": core.limits.shown,
    }


def status_fields(core: SessionCore, notice: str, now: float) -> dict[str, object]:
    """Fields of the `status` text, sent every second."""
    latency = core.latency.figures("s")
    return {
        "epoch": core.epoch,
        "fps": core.choice.shape.fps,
        "fps_sent": round(core.frame_rate.value(now), 1),
        "notice": notice,
        "clips_waiting": core.clips_waiting,
        "seconds_waiting": round(core.seconds_waiting, 3),
        "frames_sent": core.frames_sent,
        "frames_late": core.frames_late,
        "frames_dropped": core.frames_dropped,
        "frames_lost": core.frames_lost,
        "lost_because": core.failure,
        "latency_ms": {
            name[2:]: round(latency[name] * 1000) for name in ("s_p50", "s_p95") if name in latency
        },
    }


async def _wait(event: asyncio.Event, timeout: float) -> None:
    """Until the event is set or the time is over; clears the event."""
    if timeout > 0 and not event.is_set():
        loop = asyncio.get_running_loop()
        timer = loop.call_later(timeout, event.set)
        try:
            await event.wait()
        finally:
            timer.cancel()
    else:
        await asyncio.sleep(0)
    event.clear()


async def _discard(ws: ServerConnection) -> None:
    async for _ in ws:
        pass


async def _within(seconds: float, work: Awaitable[object]) -> None:
    try:
        await asyncio.wait_for(work, seconds)
    except (asyncio.TimeoutError, ConnectionClosed):
        pass
