"""Which messages go to a client, and when: one player for each version of the wire.

Both players take messages in stream order and give back those to send now. Version 1 has no positions, so its
player holds each frame until its time. Version 2's client keeps its own time, so its player sends everything
at once. It stops when too much is sent and not shown: for a slow client the newest frames win and the sound
goes on. A coded frame needs the frame before it, so all frames of a clip behind a dropped one are dropped.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from typing import Protocol

from gateway.core.audio_log import ClipAudio, ClipShape
from gateway.core.play_clock import PlayClock
from protocol.wire.browser import AudioMessage, VideoMessage, encode_audio, encode_video
from protocol.wire.clock import pts_of_frame
from protocol.wire.controls import Resume, Shown
from protocol.wire.video import JPEG


@dataclass(frozen=True)
class ClipSound:
    """The sound of the clip that begins here. `audio` tells its place in time."""

    message: AudioMessage
    audio: ClipAudio


#: Seconds of frames that may wait for the next `AckedPlayer.pull`.
BURST = 10.0

Playable = ClipSound | VideoMessage


@dataclass(frozen=True)
class OutgoingMessage:
    """A websocket message. `first_frame_of` is the clip whose first frame it carries."""

    data: bytes
    first_frame_of: int | None = None
    is_frame: bool = False


class Player(Protocol):
    """A player of either version."""

    @property
    def clock(self) -> PlayClock:
        """When each clip is played."""

    @property
    def dropped(self) -> int:
        """Frames that the client was too slow for."""

    def push(self, item: Playable, now: float) -> None:
        """Take the next item of the stream."""

    def pull(self, now: float, writable: bool) -> list[OutgoingMessage]:
        """The messages to send now. `writable` is False while the connection's buffer is full."""

    def wait(self, now: float) -> float | None:
        """Seconds until `pull` may give more by itself. None: only an event can change that."""

    def frame_shown(self, shown: Shown, now: float) -> bool:
        """The client has shown this frame. Returns whether others wait, which `pull` may give now."""

    def stalled(self, now: float) -> float:
        """Seconds for which the client has shown none of the frames that it was sent."""

    def restart(self, shape: ClipShape) -> None:
        """A new epoch begins: forget everything that was not sent."""

    def interrupt(self) -> None:
        """Forget what was sent, too: the client plays none of it any more."""

    def resume(self, resume: Resume, now: float) -> None:
        """The client is back on another connection: send again everything that it does not have."""


def _frame_message(message: VideoMessage, version: int) -> OutgoingMessage:
    first = message.seq if message.index == 0 else None
    return OutgoingMessage(encode_video(message, version), first, is_frame=True)


class PacedPlayer:
    """Version 1: a clip's sound, then its frames one by one at their times.

    A frame whose turn comes while the connection is full is dropped. When a clip would wait longer than
    `max_wait` seconds for its turn, its frames are dropped, so that the delay stays bounded.
    """

    def __init__(self, shape: ClipShape, *, repeat_to: int = 0, max_wait: float = 3.0) -> None:
        """`repeat_to`: frames a second that the client counts on. Where fewer are made, each comes again."""
        self._shape = shape
        self._repeat_to = repeat_to
        self.clock = PlayClock(shape)
        self.dropped = 0
        self._max_wait = max_wait
        self._queue: deque[tuple[float, Playable]] = deque()
        self._skipping = False
        self._full_since: float | None = None

    def push(self, item: Playable, now: float) -> None:
        if isinstance(item, ClipSound):
            start = self.clock.begin(item.audio, now)
            self._skipping = start - now > self._max_wait
            if self._skipping:
                self.clock.end = start
            self._queue.append((start, item))
        elif self._skipping:
            self.dropped += 1
        else:
            self.clock.arrived(item.pts, now)
            self._queue += [(self.clock.due(pts), item) for pts in self._times_of(item)]

    def _times_of(self, frame: VideoMessage) -> list[int]:
        """Each pts at which the frame is sent: its own, and those of the faster rate until the next frame."""
        frames, fps = self._shape.frames, self._shape.fps
        made = frame.count or frames
        promised = frames * self._repeat_to // fps
        if promised <= made:
            return [frame.pts]
        clip = frame.pts - pts_of_frame(frame.index * frames // made, fps)
        first, last = (-(-index * promised // made) for index in (frame.index, frame.index + 1))
        return [clip + pts_of_frame(number, self._repeat_to) for number in range(first, last)]

    def pull(self, now: float, writable: bool) -> list[OutgoingMessage]:
        if writable:
            self._full_since = None
        elif self._full_since is None:
            self._full_since = now
        out = []
        while self._queue and self._queue[0][0] <= now:
            item = self._queue.popleft()[1]
            if isinstance(item, ClipSound):
                out.append(OutgoingMessage(encode_audio(item.message, 1)))
            elif writable:
                out.append(_frame_message(item, 1))
            else:
                self.dropped += 1
        return out

    def wait(self, now: float) -> float | None:
        return max(0.0, self._queue[0][0] - now) if self._queue else None

    def frame_shown(self, shown: Shown, now: float) -> bool:
        raise AssertionError("version 1 has no acknowledgements")

    def stalled(self, now: float) -> float:
        return 0.0 if self._full_since is None else now - self._full_since

    def restart(self, shape: ClipShape) -> None:
        self._shape = shape
        self.clock.reshape(shape)
        self._queue.clear()
        self._skipping = False

    def interrupt(self) -> None:
        raise AssertionError("version 1 has no texts to interrupt with")

    def resume(self, resume: Resume, now: float) -> None:
        raise AssertionError("version 1 has no tokens to come back with")


class AckedPlayer:
    """Version 2: everything at once while less than `window` seconds and `max_bytes` are in flight.

    A message is in flight when it was sent after the last frame that the client says it has taken. Frames
    that find no room wait, each for at most `queue` seconds. For a client that has taken nothing for as long
    as `window`, none wait.
    """

    def __init__(
        self, shape: ClipShape, *, window: float = 1.0, max_bytes: int = 6 << 20, queue: float = 1.0
    ) -> None:
        self.clock = PlayClock(shape)
        self.dropped = 0
        self._window, self._max_bytes, self._queue_seconds = window, max_bytes, queue
        self._shape = shape
        self._sounds: deque[ClipSound] = deque()
        #: Frames that wait, each with the time at which it came.
        self._frames: deque[tuple[float, VideoMessage]] = deque()
        #: (epoch, seq, index; -1 for sound) of every message in flight.
        self._flight: deque[tuple[tuple[int, int, int], OutgoingMessage]] = deque()
        #: What a client that came back does not have.
        self._again: deque[tuple[tuple[int, int, int], OutgoingMessage]] = deque()
        self._flight_bytes = 0
        self._flight_frames = 0
        self._progress = 0.0
        #: Codec, epoch, seq and index of the coded frame that was sent last.
        self._coded: tuple[str, int, int, int] = ("", 0, 0, 0)

    def push(self, item: Playable, now: float) -> None:
        if isinstance(item, ClipSound):
            self.clock.begin(item.audio, now)
            self._sounds.append(item)
            return
        if not item.idle:
            self.clock.arrived(item.pts, now)
        self._frames.append((now, item))
        # Several clips may arrive at once without the client being slow.
        while len(self._frames) > BURST * self._shape.fps:
            self._drop_oldest()

    def pull(self, now: float, writable: bool) -> list[OutgoingMessage]:
        out = []
        while self._again:
            place, again = self._again.popleft()
            out.append(again)
            self._count_in_flight(place, again, now)
        while self._sounds:
            message = self._sounds.popleft().message
            out.append(OutgoingMessage(encode_audio(message, 2)))
            self._count_in_flight((message.epoch, message.seq, -1), out[-1], now)
        while self._frames and writable and self._window_open():
            frame = self._frames.popleft()[1]
            if not self._can_decode(frame):
                self.dropped += 1
                continue
            out.append(_frame_message(frame, 2))
            self._count_in_flight((frame.epoch, frame.seq, frame.index), out[-1], now)
        longest = self._queue_seconds if self.stalled(now) < self._window else 0.0
        while self._frames and now - self._frames[0][0] >= longest:
            self._drop_oldest()
        return out

    def wait(self, now: float) -> float | None:
        return None

    def frame_shown(self, shown: Shown, now: float) -> bool:
        key = (shown.epoch, shown.seq, shown.index)
        # Sound overtakes waiting frames, so the messages in flight are not in order.
        left = deque(entry for entry in self._flight if entry[0] > key)
        if len(left) < len(self._flight):
            self._progress = now
        self._flight = left
        self._flight_bytes = sum(len(out.data) for _, out in left)
        self._flight_frames = sum(place[2] >= 0 for place, _ in left)
        return bool(self._frames)

    def stalled(self, now: float) -> float:
        return now - self._progress if self._flight_frames else 0.0

    def restart(self, shape: ClipShape) -> None:
        self._shape = shape
        self.clock.reshape(shape)
        self._sounds.clear()
        self._frames.clear()
        self._again.clear()

    def interrupt(self) -> None:
        self._flight.clear()
        self._flight_bytes = self._flight_frames = 0

    def resume(self, resume: Resume, now: float) -> None:
        def missing(place: tuple[int, int, int]) -> bool:
            epoch, seq, index = place
            has = (resume.epoch, resume.heard) if index < 0 else (resume.epoch, *resume.seen)
            return (epoch, seq) > has if index < 0 else place > has

        waiting = [*self._flight, *self._again]
        # A frame is sent for the first time only once, whatever becomes of it.
        self._again = deque((p, replace(out, first_frame_of=None)) for p, out in waiting if missing(p))
        self._flight = deque(entry for entry in self._flight if not missing(entry[0]))
        self._flight_bytes = sum(len(out.data) for _, out in self._flight)
        self._flight_frames = sum(place[2] >= 0 for place, _ in self._flight)
        self._progress = now

    def _can_decode(self, frame: VideoMessage) -> bool:
        """Whether the client has what this frame refers to: the one before it in its clip."""
        if not frame.key and self._coded != (frame.codec, frame.epoch, frame.seq, frame.index - 1):
            return False
        if frame.codec != JPEG:
            self._coded = frame.codec, frame.epoch, frame.seq, frame.index
        return True

    def _drop_oldest(self) -> None:
        self._frames.popleft()
        self.dropped += 1

    def _window_open(self) -> bool:
        return self._flight_frames < self._window * self._shape.fps and self._flight_bytes < self._max_bytes

    def _count_in_flight(self, place: tuple[int, int, int], out: OutgoingMessage, now: float) -> None:
        if out.is_frame and not self._flight_frames:
            self._progress = now
        self._flight.append((place, out))
        self._flight_bytes += len(out.data)
        self._flight_frames += out.is_frame


def player_of(version: int, shape: ClipShape, repeat_to: int) -> Player:
    """The player of a version of the wire. `repeat_to` as in `PacedPlayer`."""
    return PacedPlayer(shape, repeat_to=repeat_to) if version == 1 else AckedPlayer(shape)
