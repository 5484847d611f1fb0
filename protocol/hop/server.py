"""The upstream side of a hop, which `protocol/hop/__init__.py` describes."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

from protocol.hop import sockets
from protocol.hop.dispatch import SILENT_AFTER, Dispatcher, Peer, TrackedJob
from protocol.hop.keys import RunKey
from protocol.hop.sockets import DRAIN, Context
from protocol.wire.codec import decode, encode
from protocol.wire.figures import QUEUE_WAIT_BOUNDS_MS, Histogram, Summary
from protocol.wire.limits import MAX_HEADER_BYTES, MAX_PARTS, ProtocolError
from protocol.wire.messages import Ack, Bye, Close, Heartbeat, Hello, Ready, Work

logger = logging.getLogger(__name__)

#: Seconds of silence after which a worker's connection is tried.
PROBE_AFTER = 0.5
#: Seconds without a hand-over after which the next one is logged.
HAND_OVER_LOG_EVERY = 5.0
#: Most workers of one server.
MAX_PEERS = 256
#: Most unknown senders whose last Hello is remembered.
MAX_STRANGERS = 1024
#: The reason of a worker that said goodbye.
LEFT = "it left"
#: Seconds between two Hello to the same sender: it needs that long to answer.
GREET_EVERY = 0.1


@dataclass(frozen=True, slots=True)
class WorkerJoined:
    """A worker is ready for jobs."""

    worker: str
    stage: str


@dataclass(frozen=True, slots=True)
class WorkerLost:
    """A worker was given up. Its `redispatched` jobs went back to the front of the queue.

    On a sticky hop the state of `sessions` is lost with it.
    """

    worker: str
    why: str
    redispatched: int
    sessions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Acked:
    """A worker has acknowledged `msg`."""

    msg: Work
    worker: str


#: The events at a hop's server, for the stage that owns it.
HopEvent = WorkerJoined | WorkerLost | Acked


@dataclass(frozen=True, slots=True)
class _EncodedWork:
    message: Work
    parts: list[bytes]


class HopServer:
    """The upstream side of a hop: it holds every message until a worker acknowledges it. Not thread-safe.

    Args:
        ctx: makes the socket.
        endpoint: address to bind.
        sticky: a session stays with one worker. Otherwise any worker with credit takes any message.
        dead_after: seconds of silence after which a worker is given up.
        name: of the hop, for logs and figures.
        max_pending_per_session: messages of a session that may wait for credit.
        clock: seconds that never run backwards.
        key: the run's, needed for TCP.

    Raises:
        EndpointError: the address cannot be bound.
    """

    def __init__(
        self,
        ctx: Context,
        endpoint: str,
        *,
        sticky: bool,
        dead_after: float,
        name: str = "hop",
        max_pending_per_session: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        key: RunKey | None = None,
    ) -> None:
        self._bound = sockets.BoundRouter(ctx, endpoint, max_part_bytes=MAX_HEADER_BYTES, key=key)
        self.socket = self._bound.socket
        self.wake: Callable[[], None] | None = None  # set by aio.pump: sending may hide a readable edge
        self._name = name
        self._clock = clock
        self._server_number = secrets.randbits(31) + 1
        self._jobs = Dispatcher[_EncodedWork](
            sticky=sticky,
            dead_after=dead_after,
            max_pending_per_session=max_pending_per_session,
            # numbers of an earlier server mean nothing here, so acknowledgements of them do no harm
            first_job=(self._server_number << 32) + 1,
        )
        self._events: list[HopEvent] = []
        self._greeted: dict[bytes, float] = {}
        self._last_tick = clock()
        self._handed_over_at = float("-inf")
        self._last_probe = clock()
        self._counts = dict.fromkeys(
            ("sent", "acked", "redispatched", "handed_over", "dropped", "lost_workers", "malformed"), 0
        )
        self._queued_s = Histogram(QUEUE_WAIT_BOUNDS_MS)
        self._work_s = Summary()

    # ------------------------------------------------------------------ the caller's side

    def dispatch(self, msg: Work) -> list[Work]:
        """Queue `msg` for a worker with credit.

        Returns:
            The messages that the session's bound pushed out. The caller reports them as Failed.
        """
        # copied, since a job may be sent again long after the caller has written to its arrays
        encoded = _EncodedWork(msg, [bytes(part) for part in encode(msg)])
        pushed_out = self._jobs.add_job(msg.session, msg.epoch, encoded, self._clock())
        self._counts["dropped"] += len(pushed_out)
        self._hand_out()
        return [encoded.message for encoded in pushed_out]

    def broadcast(self, msg: Close) -> None:
        """Send `msg` to every worker. The session's waiting messages go. Held ones are not given again."""
        self._jobs.cancel(msg.session, msg.epoch)
        for peer in self._jobs.peers:
            self._send(peer.key, 0, list(encode(msg)))
        self._hand_out()

    def on_readable(self) -> list[HopEvent]:
        """Read at most `DRAIN` messages that have arrived, and hand out jobs."""
        for _ in range(DRAIN):
            parts = sockets.receive(self.socket, 1 + MAX_PARTS)
            if parts is None:
                break
            self._accept(parts[0], parts[1:])
        self._hand_out()
        return self._take_events()

    def tick(self, *, readable: bool = True) -> list[HopEvent]:
        """Find dead workers and give their jobs to others.

        Call this at least every 0.1 s while there are jobs, and every 2 s without.

        Args:
            readable: whether the socket may have something to read.
        """
        # A message that waits here counts before the silence does.
        events = self.on_readable() if readable else []
        now = self._clock()
        if now - self._last_tick > self._jobs.dead_after / 2:
            self._jobs.forgive_silence(now)  # this side was away and read nothing, so silence proves nothing
        elif now - self._last_tick > SILENT_AFTER / 2:
            self._jobs.note_pause(now)
        self._last_tick = now
        for peer in self._jobs.silent_workers(now, self._jobs.dead_after):
            self._give_up(peer.key, f"silent for {now - peer.last_seen:.1f} s")
        if now - self._last_probe >= PROBE_AFTER:
            self._last_probe = now
            for peer in self._jobs.silent_workers(now, PROBE_AFTER):
                # sending fails at once when the worker was killed, long before `dead_after`
                if not self._send(peer.key, 0, list(encode(Heartbeat()))):
                    self._give_up(peer.key, "its connection is gone")
        self._hand_out()
        return events + self._take_events()

    def stats(self) -> dict[str, float]:
        """Figures of this hop. Each name begins with the hop's."""
        figures: dict[str, float] = {
            "workers": self.workers, "pending": self.pending, "in_flight": self.in_flight,
        }  # fmt: skip
        figures |= {f"{name}_total": count for name, count in self._counts.items()}
        figures |= self._queued_s.figures("queued_seconds") | self._work_s.figures("work_seconds")
        return {f"{self._name}_{name}": float(value) for name, value in figures.items()}

    @property
    def workers(self) -> int:
        return len(self._jobs.peers)

    @property
    def pending(self) -> int:
        return self._jobs.pending

    @property
    def in_flight(self) -> int:
        return self._jobs.in_flight

    def pending_of(self, session: str) -> int:
        """How many messages of a session wait for a worker's credit."""
        return self._jobs.pending_of(session)

    def close(self) -> None:
        self._bound.close()

    # ------------------------------------------------------------------ the workers' side

    def _accept(self, key: bytes, parts: list[bytes]) -> None:
        now = self._clock()
        try:
            message = decode(parts)
        except ProtocolError as error:
            self._ignore(key, str(error))
            return
        if isinstance(message, Ready):
            self._welcome(key, message, now)
        elif isinstance(message, Bye):
            if self._jobs.find_worker(key) is not None:
                self._give_up(key, LEFT)
        elif not isinstance(message, (Ack, Heartbeat)):
            self._ignore(key, f"a worker does not send {type(message).__name__}")
        elif not self._jobs.note_alive(
            key, now, rests=isinstance(message, Heartbeat) and message.rests
        ):  # of an earlier server, or given up by this one
            self._greet(key, now)
        elif isinstance(message, Ack):
            self._finish(key, message.job, now)
        elif not self._jobs.check_held(key, message.jobs, now):
            self._give_up(key, "a job was lost on the way")
            self._greet(key, now)

    def _welcome(self, key: bytes, ready: Ready, now: float) -> None:
        if self._jobs.find_worker(key) is None and self.workers >= MAX_PEERS:
            self._ignore(key, f"more than {MAX_PEERS} workers")
            return
        self._greeted.pop(key, None)
        if self._jobs.add_worker(key, ready.stage, ready.worker, ready.credit, now):
            logger.info("%s: %s %s joined", self._name, ready.stage, ready.worker)
            self._events.append(WorkerJoined(ready.worker, ready.stage))

    def _finish(self, key: bytes, number: int, now: float) -> None:
        peer = self._jobs.find_worker(key)
        given_at = now if peer is None else peer.held_since.get(number, now)
        job = self._jobs.ack(key, number)
        if peer is None or job is None:
            return
        self._counts["acked"] += 1
        self._work_s.add(now - given_at)
        self._events.append(Acked(job.payload.message, peer.name))

    def _greet(self, key: bytes, now: float) -> None:
        """Ask an unknown sender for READY, not more often than it can answer."""
        if now - self._greeted.get(key, -1.0) < GREET_EVERY:
            return
        if len(self._greeted) >= MAX_STRANGERS:  # a flood of identities must not fill the memory
            self._greeted.clear()
        self._greeted[key] = now
        self._send(key, 0, list(encode(Hello(self._server_number))))

    def _give_up(self, key: bytes, why: str) -> None:
        peer = self._jobs.find_worker(key)
        if peer is None:
            return
        sessions = tuple(self._jobs.sessions_of(key))
        back = self._jobs.remove_worker(key)
        self._counts["redispatched"] += back
        self._counts["lost_workers"] += 1
        # A goodbye with nothing in hand is the end of a run, or of a worker that somebody stopped.
        level = logging.INFO if why == LEFT and not back else logging.WARNING
        text = "%s: %s %s is gone (%s), %d jobs go to others"
        logger.log(level, text, self._name, peer.stage, peer.name, why, back)
        self._events.append(WorkerLost(peer.name, why, back, sessions))

    def _hand_out(self) -> None:
        while (given := self._jobs.assign(self._clock())) is not None:
            peer, job = given
            if not self._send(peer.key, job.number, list(job.payload.parts)):
                self._give_up(peer.key, "its connection is gone")
                continue
            self._counts["sent"] += 1
            self._note_hand_over(peer, job)
            if job.times_sent == 1:  # later on it would count a lost worker's time as a wait
                self._queued_s.add(job.sent_at - job.queued_at)

    def _note_hand_over(self, peer: Peer[_EncodedWork], job: TrackedJob[_EncodedWork]) -> None:
        """Log the first of a row of jobs that a second worker got as well."""
        if self._jobs.handed_over == self._counts["handed_over"]:
            return
        now = self._clock()
        if now - self._handed_over_at > HAND_OVER_LOG_EVERY:
            logger.warning(
                "%s: a worker is silent, so %s gets clip %d of session %s as well, and perhaps more",
                self._name, peer.name, job.payload.message.seq, job.session,
            )  # fmt: skip
        self._handed_over_at = now
        self._counts["handed_over"] = self._jobs.handed_over

    def _send(self, key: bytes, number: int, parts: list[bytes | memoryview]) -> bool:
        sent = sockets.send(self.socket, [key, number.to_bytes(8, "big"), *parts])
        if self.wake is not None:
            self.wake()
        return sent

    def _ignore(self, key: bytes, why: str) -> None:
        self._counts["malformed"] += 1
        if self._counts["malformed"] <= 10 or self._counts["malformed"] % 1000 == 0:
            logger.warning("%s: a message from %r is ignored: %s", self._name, key[:80], why)

    def _take_events(self) -> list[HopEvent]:
        events, self._events = self._events, []
        return events
