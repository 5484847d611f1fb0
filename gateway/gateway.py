"""The gateway process: sessions by name, between the websocket server and the sockets of the stages.

A clip's way through it: `Connection` takes speech from the websocket into the session's `SessionCore`, which
cuts it into Pcm messages. `send_speech` hands these to the audio workers. Frames come back through
`ResultRouter`. The core puts them in order and into its player, and `Connection` sends the messages
that the player gives out.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from weakref import WeakKeyDictionary

import zmq
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from gateway.avatars.open import open_own_avatars
from gateway.avatars.preview import PreviewMaker
from gateway.connection import Connection
from gateway.core.options import SessionLimits, SessionOptions
from gateway.core.phases import ClipPhases
from gateway.core.session import SessionCore
from gateway.door.guard import Grant, Guard
from gateway.door.rules import Door
from gateway.door.tls import TlsGate
from gateway.door.token_watch import TokenWatch
from gateway.handshake import bound_listener, peer_of, select_subprotocol, websockets_logger
from gateway.http_connection import HttpConnection, connections_within
from gateway.metrics import GatewayCollector, SessionTotals
from gateway.offers import Offers
from gateway.recording.recordings import Recordings
from gateway.recording.site import RecordingSite
from gateway.result_router import ResultRouter
from gateway.session_watch import SessionWatch
from gateway.sessions import SessionRegistry
from gateway.site import Site
from gateway.stages import StageBoard
from gateway.thumbnails import Thumbnails
from gateway.voices import VoiceHop
from gateway.waiting import cancel_tasks
from protocol.hop.aio import pump, watch_ends
from protocol.hop.keys import RunKey
from protocol.hop.results import ResultServer
from protocol.hop.server import HopEvent, HopServer, WorkerLost
from protocol.process.addresses import bracketed
from protocol.process.ready import tell_alive, tell_ready
from protocol.process.settings import NO_AUTH_WARNING, Settings, is_open_to_all
from protocol.process.voices import VoiceChoice
from protocol.wire.browser import MAX_MESSAGE_BYTES, SUBPROTOCOL_V2, BrowserError
from protocol.wire.clock import FULL_RATE
from protocol.wire.controls import Options, Resume
from protocol.wire.limits import MAX_COUNT
from protocol.wire.messages import Close, Pcm, Sentence
from protocol.wire.phrases import phrase

logger = logging.getLogger(__name__)

#: Seconds that sessions get to tell their clients that the gateway stops.
LAST_WORDS = 1.0
#: Seconds between two ticks of the results, which have nothing to do by the time.
RESULTS_TICK_EVERY = 10.0
#: Seconds for a request, its body and its answer. `http_connection` bounds the head.
OPEN_SECONDS = 150
#: Connections beyond the most sessions: those that are not sessions yet, or are no more.
SPARE_CONNECTIONS = 64
#: Connections that are no websockets, or none yet. More would take the descriptors of the process, and 15 KB
#: of memory each, of which a flood leaves most behind.
PLAIN_CONNECTIONS = 192
#: Pcm messages of a session that may wait for the audio worker, some 3 s of sound. The oldest give way.
PENDING_PCM = 16


class Gateway:
    """Serves until it is told to stop. It has one event loop, which waits for sockets alone."""

    def __init__(self, settings: Settings, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        """Read the token file and the certificate, and bind the stages' sockets.

        Raises:
            TokenFileError: the token file cannot be used.
            CertificateError: there is no certificate that can serve.
            EndpointError: the sockets cannot be had.
        """
        self.settings = settings
        self.guard = Guard(TokenWatch(settings.token_file) if settings.token_file else None)
        #: Rights of the websockets that are being opened.
        self._grants: WeakKeyDictionary[ServerConnection, Grant] = WeakKeyDictionary()
        self._tls = TlsGate(settings) if settings.serves_tls else None
        self.board = StageBoard(settings.dead_after)
        self.phases = ClipPhases(lambda: self.board.warm_workers()["gpu_worker"], lambda: self.board.sessions)
        self.totals = SessionTotals()
        self._thumbnails = Thumbnails(settings)
        self._previews = PreviewMaker(self.send_speech, self.close_epoch)
        self._own_avatars = open_own_avatars(
            settings, self.board, self._previews, self._has_place, lambda: not self.sessions.all()
        )
        self._offers = Offers(settings, self.board, self._thumbnails, self._own_avatars)
        self.sessions = SessionRegistry(settings, self.totals, self._close_session, self._offers.sessions)
        self.recordings = Recordings(settings, self.sessions)
        key = settings.hop_key()
        self.pcm = self._pcm_server(context, key)
        self.results = ResultServer(context, settings.endpoint("results"), key=key)
        self._voice = VoiceHop(settings, context, key)
        self._limits = SessionLimits(
            idle=settings.idle_flush, clip=2 * settings.dead_after + 5, overtaken=settings.dead_after + 2
        )
        self._open_connections = 0
        self._stopping = False
        self._router = ResultRouter(self.results, self.board, self.sessions, self._previews, self.totals)
        self._watch = SessionWatch(self.board, self.sessions, self.guard, self.results, self.recordings)
        self._site = self._new_site()

    def _pcm_server(self, context: zmq.Context[zmq.Socket[bytes]], key: RunKey | None) -> HopServer:
        """The hop to the audio workers."""
        return HopServer(
            context,
            self.settings.endpoint("pcm"),
            sticky=True,
            dead_after=self.settings.dead_after,
            name="pcm",
            max_pending_per_session=PENDING_PCM,
            key=key,
        )

    def _new_site(self) -> Site:
        """What plain HTTP requests are answered from."""
        collector = GatewayCollector(
            self.totals, self.sessions.all, self.pcm.stats, self.board, self._offers.sessions
        )
        return Site(
            Door(self.settings),
            self.guard,
            self.board,
            self._thumbnails,
            collector.text,
            lambda grant: self._offers.catalogue(grant, self.notice()),
            self._is_full,
            self.totals.refused,
            self._own_avatars,
            RecordingSite(self.recordings, self.sessions, generated=self.settings.mark_generated),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Listen, and serve until `stop` is set. Raises EndpointError when the port cannot be had."""
        listener = bound_listener(self.settings)

        def forget_lost_workers() -> None:
            if not stop.is_set():  # then all of them end, and that is no loss
                self._watch.forget_lost_workers()

        tasks = [
            asyncio.create_task(
                pump(
                    self.pcm,
                    self._take_hop_event,
                    tick_every=self._watch.seconds_to_check,
                    after_tick=self._check,
                )
            ),
            asyncio.create_task(pump(self.results, self._router.take, tick_every=lambda: RESULTS_TICK_EVERY)),
            asyncio.create_task(watch_ends(self.results.socket, forget_lost_workers)),
            asyncio.create_task(self._own_avatars.run(self._thumbnails.avatar_files)),
        ]
        if self._voice.hop is not None:
            tasks.append(
                asyncio.create_task(
                    pump(self._voice.hop, lambda _: None, tick_every=self._watch.seconds_to_check)
                )
            )
        if self._tls is not None:
            tasks.append(asyncio.create_task(self._tls.watch()))
        try:
            async with self._server(listener):
                tell_ready()
                self._log_address()
                stopped = asyncio.ensure_future(stop.wait())
                done, _ = await asyncio.wait([stopped, *tasks], return_when=asyncio.FIRST_COMPLETED)
                self._stopping = True
                # The server waits for its requests, and these may wait for many pictures.
                self._thumbnails.close()
                for connection in self.sessions.all():
                    connection.end(BrowserError("shutdown", "the server is stopping"))
                await self._wait_for_last_words()
                await asyncio.to_thread(self.recordings.close)
                for future in done:
                    future.result()
        finally:
            await cancel_tasks(tasks)

    def _server(self, listener: socket.socket) -> AbstractAsyncContextManager[Server]:
        """The websocket server, which answers plain requests as well. It listens when it is entered."""
        return serve(
            self._serve_client,
            sock=listener,
            ssl=self._tls.context if self._tls else None,
            process_request=self._answer_http,
            create_connection=connections_within(
                self.settings.most_sessions + SPARE_CONNECTIONS + PLAIN_CONNECTIONS
            ),
            select_subprotocol=select_subprotocol,
            subprotocols=[Subprotocol(SUBPROTOCOL_V2)],
            compression=None,  # JPEG and float noise do not shrink
            server_header=None,
            logger=websockets_logger(),
            max_size=MAX_MESSAGE_BYTES,
            max_queue=8,
            write_limit=1 << 21,
            ping_interval=10,
            ping_timeout=20,
            close_timeout=2,
            open_timeout=OPEN_SECONDS,
        )

    async def _wait_for_last_words(self) -> None:
        """Let the sessions close their connections, since the server would close them with another reason."""
        deadline = time.monotonic() + LAST_WORDS
        while self.sessions.all() and time.monotonic() < deadline:
            await asyncio.sleep(0.02)

    def close(self) -> None:
        """Close the stages' sockets."""
        self.pcm.close()
        self._voice.close()
        self.results.close()

    def _log_address(self) -> None:
        settings = self.settings
        scheme = "https" if self._tls else "http"
        logger.info("serving on %s://%s:%d", scheme, bracketed(settings.host), settings.port)
        if is_open_to_all(settings):
            logger.warning(NO_AUTH_WARNING)
        elif settings.token_file is None:
            logger.info("every user of this machine may open the page; --token-file would ask for a token")

    # ---- from the stages

    def _take_hop_event(self, event: HopEvent) -> None:
        """The sessions of a lost audio worker go on at another one, with their last sound as history."""
        if not isinstance(event, WorkerLost) or not self.pcm.workers or not self.board.ready:
            return
        for name in event.sessions:
            if connection := self.sessions.get(name):
                self._watch.guarded(connection, connection.begin_new_epoch)

    # ---- for the connections

    def resolve_options(self, options: Options, grant: Grant) -> SessionOptions:
        """Fill in the options that the client left open. Raises BrowserError if they cannot be had."""
        return self._offers.resolve_options(options, grant)

    def notice(self) -> str:
        """The outage, or the reason for a lower frame rate, for clients to show. Empty when all is well."""
        return self._watch.notice()

    def stage_times(self) -> dict[str, int]:
        """Stage → how long clips are in it just now, in ms."""
        return self.board.times.milliseconds()

    @property
    def full_rate(self) -> int:
        """Frames a second that a client counts on which does not name a rate."""
        return self.settings.fps or FULL_RATE

    def take_over(self, connection: Connection, resume: Resume) -> SessionCore | None:
        """Give the session that the client comes back to into this connection's hands."""
        return self.sessions.take_over(connection, resume)

    def resume_token(self, connection: Connection) -> str:
        """The token with which the client can come back to its session."""
        return self.sessions.resume_token(connection)

    def admit(self, connection: Connection) -> None:
        """Count the session in. Raises BrowserError("busy")."""
        self.sessions.admit(connection)
        if connection.core is not None:
            connection.core.phases = self.phases

    def record(self, connection: Connection, action: str) -> None:
        """Record the session, or stop."""
        self.recordings.control(connection, action)

    def pcm_waiting(self, session: str) -> int:
        """How many Pcm messages of this session wait for an audio worker."""
        return self.pcm.pending_of(session)

    def send_speech(self, messages: Sequence[Pcm]) -> None:
        """Hand speech to the audio workers. The clips of messages that a full queue drops fail."""
        for pcm in messages:
            for dropped in self.pcm.dispatch(pcm):
                if isinstance(dropped, Pcm) and (connection := self.sessions.get(dropped.session)):
                    assert connection.core is not None
                    connection.core.pcm_pushed_out(dropped, time.monotonic())
                    connection.wake_sender()

    def close_epoch(self, session: str, epoch: int) -> None:
        """Tell the stages that this epoch is over."""
        self.pcm.broadcast(Close(session, epoch))

    def _close_session(self, session: str, epoch: int) -> None:
        self.close_epoch(session, epoch)
        self.close_texts(session, MAX_COUNT)
        self.phases.forget(session)

    @property
    def voice(self) -> VoiceChoice:
        """The engine that speaks texts."""
        return self._voice.choice

    def speak(self, sentence: Sentence) -> None:
        """Hand a sentence to a voice worker."""
        self._voice.speak(sentence)

    def close_texts(self, session: str, turn: int) -> None:
        """Tell the voice workers that the sentences up to this turn are not wanted any more."""
        self._voice.close_session(session, turn)

    # ---- the websocket server

    async def _answer_http(self, ws: ServerConnection, request: Request) -> Response | None:
        assert isinstance(ws, HttpConnection)
        try:
            outcome = await self._site.respond(request, peer_of(ws), ws.read_body)
        finally:
            ws.drop_body()
        if isinstance(outcome, Response):
            return outcome
        self._grants[ws] = outcome
        return None

    def _has_place(self) -> bool:
        return len(self.sessions.all()) < self._offers.sessions()

    def _is_full(self) -> bool:
        return self._open_connections >= self.settings.most_sessions + SPARE_CONNECTIONS

    async def _serve_client(self, ws: ServerConnection) -> None:
        assert isinstance(ws, HttpConnection)
        version = 2 if ws.subprotocol == SUBPROTOCOL_V2 else 1
        connection = Connection(
            self,
            ws,
            self._grants.pop(ws),
            secrets.token_hex(8),
            version,
            self._limits,
            self.totals.first_frames,
        )
        self._open_connections += 1
        error: BrowserError | None = BrowserError("failed", phrase("failed_gateway"))
        try:
            error = await connection.run()
            if error is not None:
                self.totals.errors[error.code] += 1
        finally:
            self._open_connections -= 1
            # A network that stands still looks like a client that shows nothing.
            may_come_back = (error is None or error.code == "slow_client") and not self._stopping
            self.sessions.leave(connection, may_come_back)

    def _check(self) -> None:
        """What is done each time that the hop to the audio workers has ticked, in the same wake-up."""
        tell_alive()
        self._voice.wake()
        self._watch.check()
