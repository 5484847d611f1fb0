"""A worker's side of a hop, which `protocol/hop/__init__.py` describes."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Container
from dataclasses import dataclass, field

import zmq

from protocol.hop import sockets
from protocol.hop.keys import RunKey
from protocol.hop.sockets import DRAIN, Context
from protocol.wire.codec import decode, encode
from protocol.wire.limits import MAX_BUFFER_BYTES, MAX_HELD_JOBS, MAX_PARTS, ProtocolError
from protocol.wire.messages import (
    Ack,
    Bye,
    Clip,
    Close,
    Heartbeat,
    Hello,
    Latents,
    Message,
    Pcm,
    Ready,
    Sentence,
    Work,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobOrigin:
    """Where a job comes from."""

    #: Index of the upstream.
    upstream: int
    #: How often that upstream had forgotten this worker before it gave the job.
    life: int
    #: The upstream's number for the job, or 0 if it needs no acknowledgement.
    number: int


@dataclass(frozen=True, slots=True)
class Job:
    """A message to work on and then to `ack`. A Close needs no acknowledgement, and `ack` does nothing."""

    msg: Work | Close
    origin: JobOrigin
    #: When it arrived, in seconds of the client's clock.
    received_at: float = 0.0


@dataclass(slots=True)
class _Upstream:
    socket: zmq.Socket[bytes]
    #: How often it has forgotten this worker. Jobs of an earlier life are void.
    life: int = 0
    #: Whether it was sent READY.
    announced: bool = False
    #: Numbers of the jobs received and not acknowledged.
    held: set[int] = field(default_factory=set)
    #: Acknowledgements that could not be sent yet.
    unsent: deque[int] = field(default_factory=deque)


class HopClient:
    """A worker's side of a hop, connected to every upstream. Not thread-safe.

    READY is first sent by `heartbeat()`, so a worker that is not warm gets no jobs.

    Args:
        ctx: makes the sockets.
        endpoints: addresses of the upstreams.
        stage: kind of this worker.
        worker: name of this worker, one of its own in the stage.
        credit: jobs held at once from each upstream.
        heartbeat_every: seconds between two heartbeats.
        clock: seconds that never run backwards.
        on_reset: is called with an upstream's index when it restarted or had given this worker up. Its jobs
            are void, and the state of its sessions should be dropped.
        key: the run's, needed for TCP.
        acks_may_wait: while most of the credit is free, acknowledgements go with the next heartbeat, so that
            they wake nobody.
    """

    def __init__(
        self,
        ctx: Context,
        endpoints: list[str],
        *,
        stage: str,
        worker: str,
        credit: int,
        heartbeat_every: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
        on_reset: Callable[[int], None] | None = None,
        key: RunKey | None = None,
        acks_may_wait: bool = False,
    ) -> None:
        #: Jobs not acknowledged at the upstream up to which an acknowledgement may wait.
        self._calm = credit // 2 if acks_may_wait else 0
        self._ready = Ready(stage, worker, credit)
        self._every = heartbeat_every
        self._clock = clock
        self._last_beat = float("-inf")
        self._inbox: deque[Job] = deque()
        self.on_reset = on_reset
        self.malformed = 0
        name, most = f"{stage}.{worker}", MAX_BUFFER_BYTES
        self._upstreams = [
            _Upstream(sockets.dealer(ctx, url, name=name, max_part_bytes=most, key=key)) for url in endpoints
        ]
        self.sockets = [upstream.socket for upstream in self._upstreams]

    def recv(self, readable: Container[object] | None = None) -> list[Job]:
        """The jobs that have arrived, without waiting.

        Args:
            readable: those of `sockets` that have something to read. None: all may have.
        """
        self._read_all(readable)
        jobs = list(self._inbox)
        self._inbox.clear()
        return jobs

    def ack(self, job: Job) -> None:
        """The job's output is safe downstream. Does nothing a second time, or when the upstream is gone."""
        upstream = self._upstreams[job.origin.upstream]
        if job.origin.life != upstream.life or job.origin.number not in upstream.held:
            return
        upstream.held.discard(job.origin.number)
        upstream.unsent.append(job.origin.number)
        if len(upstream.held) + len(upstream.unsent) > self._calm:
            self._send_acks(upstream)

    def heartbeat(self, *, rests: bool = False) -> None:
        """Tell the upstreams that this worker lives, and READY where it is due. Limits its own rate.

        Args:
            rests: the next one may be 1.6 s away, unless a job comes.
        """
        now = self._clock()
        if now - self._last_beat < self._every:
            return
        self._last_beat = now
        for upstream in self._upstreams:
            if not upstream.announced:
                upstream.announced = sockets.send(upstream.socket, encode(self._ready))
            if upstream.announced:
                # acknowledgements go first, or the server misses these jobs in the heartbeat
                self._send_acks(upstream)
                jobs = tuple(sorted(upstream.held)[:MAX_HELD_JOBS])
                sockets.send(upstream.socket, encode(Heartbeat(jobs, rests)))

    @property
    def held(self) -> int:
        """Jobs received and not acknowledged."""
        return sum(len(upstream.held) for upstream in self._upstreams)

    def close(self) -> None:
        """Say BYE, so that jobs without an acknowledgement go to another worker at once."""
        for upstream in self._upstreams:
            if upstream.announced:
                self._send_acks(upstream)
                sockets.send(upstream.socket, encode(Bye()))
            upstream.socket.close(linger=200)

    def _send_acks(self, upstream: _Upstream) -> None:
        while upstream.unsent and sockets.send(upstream.socket, encode(Ack(upstream.unsent[0]))):
            upstream.unsent.popleft()

    def _read_all(self, readable: Container[object] | None) -> None:
        for index, upstream in enumerate(self._upstreams):
            if readable is not None and upstream.socket not in readable:
                continue
            for _ in range(DRAIN):
                parts = sockets.receive(upstream.socket, 1 + MAX_PARTS)
                if parts is None:
                    break
                self._read(index, upstream, parts)

    def _read(self, index: int, upstream: _Upstream, parts: list[bytes]) -> None:
        number = int.from_bytes(parts[0], "big") if len(parts[0]) == 8 else 0
        try:
            message = decode(parts[1:])
            self._accept(index, upstream, number, message)
        except ProtocolError as error:
            self.malformed += 1
            logger.error("job %d from upstream %d is malformed and skipped: %s", number, index, error)
            if number:  # sent again, it would be malformed again: so it counts as done
                upstream.unsent.append(number)
                self._send_acks(upstream)

    def _accept(self, index: int, upstream: _Upstream, number: int, message: Message) -> None:
        if isinstance(message, Hello):
            self._reset(index, upstream)
        elif isinstance(message, Close):
            self._inbox.append(Job(message, JobOrigin(index, upstream.life, 0), self._clock()))
        elif isinstance(message, (Pcm, Clip, Latents, Sentence)) and number:
            if number not in upstream.held:  # the same number again asks for nothing new
                upstream.held.add(number)
                self._inbox.append(Job(message, JobOrigin(index, upstream.life, number), self._clock()))
        elif not isinstance(message, Heartbeat):
            raise ProtocolError(f"an upstream does not send {type(message).__name__} as job {number}")

    def _reset(self, index: int, upstream: _Upstream) -> None:
        logger.warning(
            "upstream %d has forgotten this worker or never knew it; %d jobs in hand are void",
            index,
            len(upstream.held),
        )
        upstream.life += 1  # so that `ack` knows the jobs of before
        upstream.held.clear()
        upstream.unsent.clear()
        self._inbox = deque(job for job in self._inbox if job.origin.upstream != index)
        upstream.announced = sockets.send(upstream.socket, encode(self._ready))
        if self.on_reset is not None:
            self.on_reset(index)
