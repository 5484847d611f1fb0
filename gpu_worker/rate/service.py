"""How late the clips of real sessions are, and how long the machine takes for one. No I/O, no clock.

A clip's turn is the moment at which it would be played by a machine that takes no time: when it arrives, or
one clip's duration after the turn of the clip before, whichever is later. Clips that come in a bunch, after a
pause of the network or at a session's beginning, are therefore not late.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from protocol.wire.messages import ClipKey

#: First clips of a session that say nothing about the rate: its avatar may not be in the cache.
STARTING_CLIPS = 2

#: Seconds, from a clip's turn to its confirmation, that are expected of starting clips.
USUAL_DELAY = 0.3

#: A session speaks if its last clip came at most this many clip durations ago.
SPEAKS_FOR = 2.5

#: Seconds after its last clip for which a session is remembered.
REMEMBERED = 60.0

#: Clips whose times are kept.
KEPT_TIMES = 16


@dataclass(slots=True)
class _ClipStream:
    """One session's clips."""

    epoch: int
    frames: int
    fps: int
    turn: float
    arrived: float
    clips: int = 0

    @property
    def lasts(self) -> float:
        return self.frames / self.fps


@dataclass(slots=True)
class _ClipInHand:
    session: str
    arrived: float
    turn: float
    starting: bool
    #: The first of the clips that are made together with this one, and the frames of all.
    call: ClipKey | None = None
    frames: int = 0
    #: Of the log when the clip was begun.
    generation: int = -1


@dataclass(frozen=True, slots=True)
class ClipTime:
    """What one clip took, or several that were made together.

    Attributes:
        seconds: of the machine.
        frames: of all of them.
        delay: seconds from the turn of the last one to its confirmation.
    """

    seconds: float
    frames: int
    delay: float


class ServiceLog:
    """The clips of all sessions between their arrival and an encoder's confirmation. Not thread-safe."""

    #: Times of clips that were begun since `forget_times`, the latest last.
    times: deque[ClipTime]

    def __init__(self) -> None:
        self.times = deque(maxlen=KEPT_TIMES)
        self._in_hand: dict[ClipKey, _ClipInHand] = {}
        self._streams: dict[str, _ClipStream] = {}
        self._last_done = float("-inf")
        self._generation = 0

    # ------------------------------------------------------------------ reports

    def arrived(self, key: ClipKey, frames: int, fps: int, now: float) -> None:
        """A clip has come, with `frames` frames at `fps`."""
        session, epoch, _ = key
        stream = self._streams.get(session)
        if stream is None or stream.epoch != epoch:
            self._forget_silent(now)
            stream = self._streams[session] = _ClipStream(epoch, frames, fps, float("-inf"), now)
        stream.turn = max(now, stream.turn + stream.lasts)
        stream.arrived = now
        stream.clips += 1
        self._in_hand[key] = _ClipInHand(session, now, stream.turn, stream.clips <= STARTING_CLIPS)

    def begun(self, keys: Sequence[ClipKey], frames: int) -> None:
        """Clips have left the queue and are made together. So many frames of them are made."""
        for key in keys:
            if (clip := self._in_hand.get(key)) is not None:
                clip.call, clip.frames, clip.generation = keys[0], frames, self._generation

    def done(self, key: ClipKey, now: float) -> None:
        """An encoder has confirmed a clip."""
        clip = self._in_hand.pop(key, None)
        if clip is None:
            return
        if clip.call is not None and any(other.call == clip.call for other in self._in_hand.values()):
            return  # the last one of them tells what they took
        seconds = now - max(clip.arrived, self._last_done)
        self._last_done = now
        if clip.starting:
            self._put_off(clip.session, now - clip.turn - USUAL_DELAY)
        elif clip.generation == self._generation:
            self.times.append(ClipTime(seconds, clip.frames, now - clip.turn))

    def keep_only(self, wanted: Callable[[ClipKey], bool]) -> None:
        """Forget the clips in hand that are not `wanted`: they were given up, or their session ended."""
        for key in [key for key in self._in_hand if not wanted(key)]:
            del self._in_hand[key]

    def forget_times(self) -> None:
        """The rate has changed: clips begun before say nothing about the new one."""
        self.times.clear()
        self._generation += 1

    def stand_still(self, seconds: float) -> None:
        """Nothing could be made for so long, whatever the rate. So nothing of that time is late."""
        for clip in self._in_hand.values():
            clip.turn += seconds
            clip.arrived += seconds
        for stream in self._streams.values():
            stream.turn += seconds

    def _forget_silent(self, now: float) -> None:
        self._streams = {name: one for name, one in self._streams.items() if now - one.arrived < REMEMBERED}

    def _put_off(self, session: str, seconds: float) -> None:
        """A session's start took so much longer, and the clips behind it are not to blame."""
        if seconds > 0 and (stream := self._streams.get(session)) is not None:
            stream.turn += seconds
            for clip in self._in_hand.values():
                if clip.session == session:
                    clip.turn += seconds

    # ------------------------------------------------------------------ figures

    def late(self, now: float) -> float:
        """Seconds by which the latest clip in hand is past its turn."""
        return max((now - clip.turn for clip in self._in_hand.values() if not clip.starting), default=0.0)

    def in_progress(self, now: float) -> tuple[float, int] | None:
        """Seconds for which the machine has had the clip that is made now, and its frames."""
        begun = [clip for clip in self._in_hand.values() if clip.frames and not clip.starting]
        if not begun:
            return None
        clip = min(begun, key=lambda one: one.arrived)
        return now - max(clip.arrived, self._last_done), clip.frames

    def speaking(self, now: float) -> list[tuple[int, int]]:
        """Frames of a clip, and frames a second, of each session that speaks."""
        self._forget_silent(now)
        return [
            (stream.frames, stream.fps)
            for stream in self._streams.values()
            if now - stream.arrived < SPEAKS_FOR * stream.lasts
        ]
