"""Spreads the clips of sessions that share a GPU worker over the time of a clip.

If sessions begin at the same moment, all their clips are due at the same moments, and the last session waits
for all others. A session's clips keep the phase of its first clip. So the first clip begins with a little
silence that the client did not send. It is full sooner, and it is due when no other clips are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gateway.core.audio_log import ClipShape

#: A session speaks if a clip of it was due within this many clip durations.
SPEAKS_FOR = 2.5
#: Part of a clip's frames that its first one has at least: else a picture would come too late to be seen.
LEAST_SPOKEN = 1 / 6
#: Part of an even share of the time that is far enough from other clips.
FAR_ENOUGH = 0.75


@dataclass(frozen=True)
class _Rhythm:
    """When a clip of a session is due, how long its clips last, and the worker that it is thought to have."""

    due: float
    lasts: float
    worker: int


class ClipPhases:
    """The phases of all sessions of one gateway. Times are seconds on one clock.

    A session stays with the GPU worker that had the fewest sessions when it began. Nobody tells the gateway
    which worker that was, so the gateway counts the sessions of each worker itself.

    Args:
        workers: how many GPU workers there are.
        sessions: how many sessions they can serve together, 0 where that is not known.
    """

    def __init__(
        self, workers: Callable[[], int] = lambda: 1, sessions: Callable[[], int] = lambda: 0
    ) -> None:
        self._workers = workers
        self._sessions = sessions
        self._rhythms: dict[str, _Rhythm] = {}

    def frames_of_silence(self, session: str, shape: ClipShape, due: float, now: float) -> int:
        """Frames of silence with which the session's next clip is to begin.

        Args:
            session: that begins to speak, at the start or after a pause.
            shape: of its clips.
            due: when its first clip would be due without silence.
            now: the time.
        """
        before = self._rhythms.pop(session, None)
        self._forget_silent(now)
        worker = self._quietest() if before is None else before.worker
        others = [
            other.due for other in self._rhythms.values()
            if other.worker == worker and abs(other.lasts - shape.seconds) < 1e-6
        ]  # fmt: skip
        frames = self._choose(shape, due, others)
        self._rhythms[session] = _Rhythm(due - frames / shape.fps, shape.seconds, worker)
        return frames

    def clip_due(self, session: str, shape: ClipShape, now: float) -> None:
        """All sound of a clip has come."""
        known = self._rhythms.get(session)
        worker = self._quietest() if known is None else known.worker
        self._rhythms[session] = _Rhythm(now, shape.seconds, worker)

    def forget(self, session: str) -> None:
        """The session is over."""
        self._rhythms.pop(session, None)

    def _choose(self, shape: ClipShape, due: float, others: Sequence[float]) -> int:
        if not others:
            return 0
        lasts = shape.seconds
        held = self._sessions() // max(1, self._workers())
        # At quarters three of three wait for nobody either, and a fourth that is let in has its place.
        shares = max(4 if held == 3 else held, len(others) + 1)

        def distance(time: float) -> float:
            return min(_apart(time, other, lasts) for other in others)

        def silence(time: float) -> int:
            """The nearest number of frames by which the clip's end comes to this place."""
            return round((due - time) % lasts * shape.fps) % shape.frames

        if distance(due) >= FAR_ENOUGH * lasts / shares:
            return 0
        places = [others[0] + number * lasts / shares for number in range(shares)]
        least = max(1, round(LEAST_SPOKEN * shape.frames))
        possible = {frames for place in places if (frames := silence(place)) <= shape.frames - least}
        if all(distance(due - frames / shape.fps) < lasts / shares / 2 for frames in possible):
            possible = set(range(shape.frames - least + 1))
        # Rounded, so that of equal distances the shortest silence is taken.
        return min(possible, key=lambda frames: (-round(distance(due - frames / shape.fps), 3), frames))

    def _quietest(self) -> int:
        counts = Counter(rhythm.worker for rhythm in self._rhythms.values())
        return min(range(max(1, self._workers())), key=lambda worker: counts[worker])

    def _forget_silent(self, now: float) -> None:
        self._rhythms = {
            name: one for name, one in self._rhythms.items() if now - one.due < SPEAKS_FOR * one.lasts
        }


def _apart(one: float, other: float, lasts: float) -> float:
    """Seconds between two times on a circle of `lasts` seconds."""
    between = (one - other) % lasts
    return min(between, lasts - between)
