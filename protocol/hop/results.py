"""Frames, failures and status on their way from the workers to the gateway, which confirms whole clips."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import zmq

from protocol.hop import sockets
from protocol.hop.keys import RunKey
from protocol.hop.sockets import DRAIN, Context
from protocol.wire.codec import decode, encode
from protocol.wire.limits import MAX_HEADER_BYTES, MAX_PARTS, MAX_PICTURE_BYTES, ProtocolError
from protocol.wire.messages import (
    ClipKey,
    Failed,
    Frame,
    Heartbeat,
    Message,
    Received,
    SpokenPart,
    Status,
    clip_key,
)

logger = logging.getLogger(__name__)

#: A message on its way to the gateway.
Result = Frame | SpokenPart | Failed | Status

#: Longest wait before a clip is sent again, in seconds.
RESEND_LIMIT = 10.0
#: Messages that wait for a gateway that is not there. Beyond it the oldest are lost.
UNSENT_LIMIT = 4096
#: Seconds of a worker's silence after which its connection is tried. Its Status comes a little more often.
PROBE_AFTER = 0.6
#: The same for workers that rest.
RESTING_PROBE_AFTER = 4.0
#: Most workers whose connections are watched.
MAX_SENDERS = 1024


@dataclass(slots=True)
class _Sender:
    """A worker that has sent a Status. Both times are in seconds of the server's clock."""

    stage: str
    worker: str
    #: When something of it came last.
    last_seen: float
    #: When its connection was tried last.
    tried_at: float = float("-inf")


class ResultServer:
    """The gateway's side: a ROUTER that takes frames, failures and status. Not thread-safe.

    Args:
        ctx: makes the socket.
        endpoint: address to bind.
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
        clock: Callable[[], float] = time.monotonic,
        key: RunKey | None = None,
    ) -> None:
        self._bound = sockets.BoundRouter(ctx, endpoint, max_part_bytes=MAX_PICTURE_BYTES, key=key)
        self.socket = self._bound.socket
        self.wake: Callable[[], None] | None = None  # set by aio.pump: sending may hide a readable edge
        self.malformed = 0
        self._clock = clock
        self._senders: dict[bytes, _Sender] = {}

    def recv(self) -> list[tuple[bytes, Result]]:
        """At most `DRAIN` messages that have arrived, each after its sender. Malformed ones are logged."""
        arrived = []
        for _ in range(DRAIN):
            parts = sockets.receive(self.socket, 1 + MAX_PARTS)
            if parts is None:
                break
            try:
                message = decode(parts[1:])
                if not isinstance(message, (Frame, SpokenPart, Failed, Status)):
                    raise ProtocolError(f"{type(message).__name__} is no result")
                arrived.append((parts[0], message))
                self._note_sender(parts[0], message)
            except ProtocolError as error:
                self.malformed += 1
                if self.malformed <= 10 or self.malformed % 1000 == 0:
                    logger.warning("a result from %r is ignored: %s", parts[0][:80], error)
        return arrived

    on_readable = recv

    def tick(self, *, readable: bool = True) -> list[tuple[bytes, Result]]:
        """The same as `recv`: nothing here depends on the time."""
        return self.recv() if readable else []

    def lost_workers(self, probe_after: float = PROBE_AFTER) -> list[tuple[str, str]]:
        """Stage and name of the workers whose connection has ended since the last call.

        Sending to a worker that was killed fails at once. One that stands still is not found here.

        Args:
            probe_after: seconds of silence after which a connection is tried, and then tried again.
        """
        now = self._clock()
        lost = []
        for key, sender in list(self._senders.items()):
            if now - max(sender.last_seen, sender.tried_at) < probe_after:
                continue
            sender.tried_at = now  # the worker wakes for it, and one that rests need not answer
            if not sockets.send(self.socket, [key, *encode(Heartbeat())]):
                del self._senders[key]
                lost.append((sender.stage, sender.worker))
            if self.wake is not None:
                self.wake()
        return lost

    def _note_sender(self, key: bytes, message: Result) -> None:
        if known := self._senders.get(key):
            known.last_seen = self._clock()
        elif isinstance(message, Status) and len(self._senders) < MAX_SENDERS:
            self._senders[key] = _Sender(message.stage, message.worker, self._clock())

    def confirm_clip(self, sender: bytes, session: str, epoch: int, seq: int) -> None:
        """Tell `sender` that the clip is complete here, or is not wanted any more."""
        sockets.send(self.socket, [sender, *encode(Received(session, epoch, seq))])
        if self.wake is not None:
            self.wake()

    def close(self) -> None:
        self._bound.close()


@dataclass(slots=True)
class _UnconfirmedClip:
    """The frames of a clip until the gateway has confirmed them."""

    #: Frames of the whole clip.
    count: int
    #: The parts of each frame that was sent, by its index.
    frames: dict[int, list[bytes | memoryview]] = field(default_factory=dict)
    last_sent: float = 0.0
    resent: int = 0


class ResultClient:
    """A worker's side. Frames are kept until their clip is confirmed, and sent again if that takes long.

    The credit of the hop that feeds the worker bounds the number of these clips. Not thread-safe.

    Args:
        ctx: makes the socket.
        endpoint: the gateway's address.
        stage: kind of this worker.
        worker: name of this worker.
        resend_after: seconds until the frames of an unconfirmed clip are sent again. It doubles each time.
        clock: seconds that never run backwards.
        key: the run's, needed for TCP.
    """

    def __init__(
        self,
        ctx: Context,
        endpoint: str,
        *,
        stage: str,
        worker: str,
        resend_after: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
        key: RunKey | None = None,
    ) -> None:
        self.socket: zmq.Socket[bytes] = sockets.dealer(
            ctx, endpoint, name=f"{stage}.{worker}", max_part_bytes=MAX_HEADER_BYTES, key=key
        )
        self._resend_after = resend_after
        self._clock = clock
        self._clips: dict[ClipKey, _UnconfirmedClip] = {}
        self._unsent: deque[list[bytes | memoryview]] = deque(maxlen=UNSENT_LIMIT)
        self._status: list[bytes | memoryview] | None = None

    def send(self, msg: Result) -> None:
        """Send, or keep until the gateway is there. Of Status only the newest is kept."""
        parts = encode(msg)
        if isinstance(msg, Status):
            self._status = parts
        else:
            self._unsent.append(parts)
        if isinstance(msg, Frame):
            clip = self._clips.setdefault(clip_key(msg), _UnconfirmedClip(msg.count))
            clip.frames[msg.index] = parts
            clip.last_sent = self._clock()
        self.flush()

    def confirmed(self, *, readable: bool = True) -> list[ClipKey]:
        """The clips confirmed since the last call. Clips that were not confirmed in time are sent again.

        Args:
            readable: whether the socket may have something to read.
        """
        confirmed = []
        for _ in range(DRAIN if readable else 0):
            parts = sockets.receive(self.socket, MAX_PARTS)
            if parts is None:
                break
            try:
                message: Message = decode(parts)
            except ProtocolError as error:
                logger.warning("an answer of the gateway is ignored: %s", error)
                continue
            if isinstance(message, Received):
                key = clip_key(message)
                if self._clips.pop(key, None) is not None:
                    confirmed.append(key)
        self._resend()
        self.flush()
        return confirmed

    def forget(self, session: str, epoch: int, seq: int) -> None:
        """Do not wait for this clip's confirmation any more."""
        self._clips.pop((session, epoch, seq), None)

    def flush(self) -> None:
        """Send the messages that wait, as `confirmed` does too."""
        while self._unsent and sockets.send(self.socket, self._unsent[0]):
            self._unsent.popleft()
        # results go first: clips depend on them, and a newer status follows soon
        if self._status is not None and not self._unsent and sockets.send(self.socket, self._status):
            self._status = None

    def _resend(self) -> None:
        now = self._clock()
        for key, clip in self._clips.items():
            wait = min(RESEND_LIMIT, self._resend_after * 2**clip.resent)
            # a clip that is still being encoded waits for its last frame
            if len(clip.frames) == clip.count and now - clip.last_sent > wait:
                logger.warning("clip %s is not confirmed after %.1f s and sent again", key, wait)
                self._unsent.extend(clip.frames[index] for index in sorted(clip.frames))
                clip.last_sent, clip.resent = now, min(clip.resent + 1, 10)

    def close(self) -> None:
        self.flush()
        self.socket.close(linger=200)
