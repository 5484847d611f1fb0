"""The gateway process: sessions by name between the websocket server and the sockets of the stages."""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Sequence

import zmq
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import NegotiationError
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from gateway.connection import Connection
from gateway.core.audio_log import ClipShape
from gateway.core.session import Choice, Limits
from gateway.metrics import GatewayCollector, SessionTotals
from gateway.pictures import Pictures
from gateway.site import JSON, Answer, Site, is_upgrade, response
from gateway.stages import StageBoard
from protocol.hop.aio import pump
from protocol.hop.results import ResultServer
from protocol.hop.server import HopServer
from protocol.process.settings import Settings
from protocol.wire.browser import MAX_MESSAGE_BYTES, SUBPROTOCOL_V2, BrowserError, Options
from protocol.wire.clock import FRAME_RATES, FULL_RATE, SAMPLE_RATE, frames_of_clip
from protocol.wire.messages import Close, Failed, Frame, Pcm, Status

log = logging.getLogger(__name__)

TICK = 0.1
#: Connections that are not sessions yet, or no more.
SPARE_CONNECTIONS = 64
#: What the kernel may hold of a client that reads slowly, in bytes.
SEND_BUFFER = 1 << 18
#: Pcm messages of a session that may wait for the audio worker, some 3 s of sound: the oldest give way.
PENDING_PCM = 16


class Gateway:
    """Serves until cancelled. One event loop, nothing here waits on anything but sockets."""

    def __init__(self, settings: Settings, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self.settings = settings
        self.board = StageBoard(settings.dead_after)
        self.sessions: dict[str, Connection] = {}
        self.totals = SessionTotals()
        self.pcm = HopServer(
            context,
            settings.endpoint("pcm"),
            sticky=True,
            dead_after=settings.dead_after,
            name="pcm",
            max_pending_per_session=PENDING_PCM,
        )
        self.results = ResultServer(context, settings.endpoint("results"))
        self._limits = Limits(
            idle=settings.idle_flush, clip=2 * settings.dead_after + 5, overtaken=settings.dead_after + 2
        )
        self._open = 0
        collector = GatewayCollector(
            self.totals, lambda: list(self.sessions.values()), self.pcm.stats, self.board
        )
        self._site = Site(self.board, Pictures(settings), collector.text, self._catalogue)

    async def run(self, stop: asyncio.Event) -> None:
        """Listen, and serve until `stop` is set. Raises OSError when the port cannot be had."""
        listener = _listener(self.settings.host, self.settings.port)
        tasks = [
            asyncio.create_task(pump(self.pcm, lambda event: None)),
            asyncio.create_task(pump(self.results, self._result)),
            asyncio.create_task(self._tick()),
        ]
        server = serve(
            self._client,
            sock=listener,
            process_request=self._request,
            select_subprotocol=_subprotocol,
            subprotocols=[Subprotocol(SUBPROTOCOL_V2)],
            compression=None,  # JPEG and float noise do not shrink
            server_header=None,
            logger=_library_log(),
            max_size=MAX_MESSAGE_BYTES,
            max_queue=8,
            write_limit=1 << 21,
            ping_interval=10,
            ping_timeout=20,
            close_timeout=2,
            open_timeout=10,
        )
        try:
            async with server:
                log.info("serving on http://%s:%d", self.settings.host, self.settings.port)
                stopped = asyncio.ensure_future(stop.wait())
                done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
                for connection in list(self.sessions.values()):
                    connection.end(BrowserError("shutdown", "the server is stopping"))
                for future in done:
                    future.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def close(self) -> None:
        self.pcm.close()
        self.results.close()

    # ---- from the stages

    def _result(self, event: tuple[bytes, Frame | Failed | Status]) -> None:
        sender, message = event
        now = time.monotonic()
        if isinstance(message, Status):
            self.board.update(message, now)
            return
        connection = self.sessions.get(message.session)
        core = connection.core if connection else None
        if isinstance(message, Failed):
            if core is not None and connection is not None:
                core.failed(message, now)
                connection.wake()
            return
        fresh = False
        if core is not None and connection is not None:
            fresh = core.frame(message, now)
            connection.wake()
        # a clip that nobody waits for (any more) is confirmed as well, once its sender has sent all of it
        wanted = core is not None and not core.clip_complete(message.epoch, message.seq)
        if not wanted and (fresh or message.index == message.count - 1):
            self.results.confirm_clip(sender, message.session, message.epoch, message.seq)

    # ---- for the connections

    def choose(self, options: Options) -> Choice:
        """What a session with these options runs with. Raises BrowserError."""
        if not self.board.ready:
            why = ", ".join(f"{stage} is {state}" for stage, state in self.board.report().items())
            raise BrowserError("not_ready", f"try again soon: {why}")
        held = self.board.fps or FULL_RATE
        fps = min(options.fps or held, held)
        if options.fps is not None and options.fps not in {held, *FRAME_RATES} and options.fps < held:
            known = ", ".join(str(rate) for rate in sorted({held, *FRAME_RATES}) if rate <= held)
            raise BrowserError("bad_option", f"fps {options.fps}: give one of {known}")
        width, height = self.board.size
        return Choice(
            avatar=_pick("avatar", options.avatar, self.board.avatars),
            pose=_pick("pose", options.pose, self.board.poses),
            shape=ClipShape(fps, frames_of_clip(fps, self.settings.clip_frames)),
            sample_rate=options.sample_rate or self.settings.sample_rate,
            width=width,
            height=height,
        )

    def notice(self) -> str:
        """What clients should know about the rate; empty when there is nothing."""
        return self.board.notice

    def admit(self, connection: Connection) -> None:
        """Count the session in. Raises BrowserError("busy")."""
        if len(self.sessions) >= self.settings.max_sessions:
            raise BrowserError(
                "busy", f"{len(self.sessions)} of {self.settings.max_sessions} sessions run; try again soon"
            )
        self.sessions[connection.name] = connection
        self.totals.begun[connection.version] += 1
        log.info("session %s begins: version %d, %s", connection.name, connection.version, connection.core)

    def queued(self, session: str) -> int:
        """How many pieces of this session wait for an audio worker."""
        return self.pcm.pending_of(session)

    def send_speech(self, work: Sequence[Pcm]) -> None:
        """Hand work to the audio workers; what a full queue gives up fails its clip."""
        for pcm in work:
            for lost in self.pcm.dispatch(pcm):
                if isinstance(lost, Pcm) and (connection := self.sessions.get(lost.session)):
                    assert connection.core is not None
                    connection.core.pushed_out(lost, time.monotonic())
                    connection.wake()

    def forget_epoch(self, session: str, epoch: int) -> None:
        """Tell the stages that this epoch is over."""
        self.pcm.broadcast(Close(session, epoch))

    # ---- the websocket server

    def _request(self, ws: ServerConnection, request: Request) -> Response | None:
        if is_upgrade(request) and self._open >= self.settings.max_sessions + SPARE_CONNECTIONS:
            return response(request, Answer(b'{"error":"busy"}', JSON, 503))
        return self._site.respond(request)

    async def _client(self, ws: ServerConnection) -> None:
        version = 2 if ws.subprotocol == SUBPROTOCOL_V2 else 1
        connection = Connection(
            self, ws, secrets.token_hex(8), version, self._limits, self.totals.first_frames
        )
        self._open += 1
        try:
            error = await connection.run()
            if error is not None:
                self.totals.errors[error.code] += 1
        finally:
            self._open -= 1
            if self.sessions.pop(connection.name, None) and connection.core is not None:
                self.totals.add_ended(connection, time.monotonic())
                log.info("session %s is over: %s", connection.name, connection.core)
                self.forget_epoch(connection.name, connection.core.epoch)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            now = time.monotonic()
            self.board.tick(now)
            for connection in list(self.sessions.values()):
                self._tick_session(connection, now)

    def _tick_session(self, connection: Connection, now: float) -> None:
        core = connection.core
        assert core is not None
        try:
            core.tick(now)
            if core.fatal:
                raise core.fatal
            if 0 < self.board.fps < core.choice.shape.fps:
                connection.change(Options())
            connection.wake()
        except BrowserError as error:
            connection.end(error)
        except Exception:
            log.exception("session %s has a fault", core.name)
            connection.end(BrowserError("failed", "the gateway has a fault"))

    # ---- for the page

    def _catalogue(self) -> dict[str, object]:
        width, height = self.board.size
        return {
            "avatars": self.board.avatars,
            "poses": self.board.poses,
            "fps": self.board.fps,
            "width": width,
            "height": height,
            "model": self.board.model,
            "notice": self.board.notice,
            "sample_rate": SAMPLE_RATE,
            "max_sessions": self.settings.max_sessions,
        }


def _pick(what: str, asked: str | None, known: list[str]) -> str:
    if asked is None:
        return known[0] if known else "default"
    if asked not in known:
        listed = ", ".join(known[:20]) or "none"
        raise BrowserError("bad_option", f"there is no {what} {asked[:64]!r}; there are {listed}")
    return asked


def _subprotocol(ws: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    """Version 2 where it is offered, version 1 where nothing is."""
    if not offered:
        return None
    if SUBPROTOCOL_V2 in offered:
        return Subprotocol(SUBPROTOCOL_V2)
    raise NegotiationError(f"expected no subprotocol or {SUBPROTOCOL_V2}")


def _library_log() -> logging.Logger:
    """The websocket library says every connection at INFO; the gateway says every session."""
    library = logging.getLogger("websockets.server")
    if not log.isEnabledFor(logging.DEBUG):
        library.setLevel(logging.WARNING)
    return library


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=128)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    listener.setblocking(False)
    return listener
