"""Silent clips that the gateway asks for while a client sends nothing, so that the face lives on.

Nothing plays by a clock then, so the gateway sends each of their frames when its time has come. Speech is
never put off. Its first clip begins once all of its sound is there, so the face lives on until then. The
frames that are left are spread over the time until that clip is made.
"""

from __future__ import annotations

from collections import deque

from protocol.wire.browser import VideoMessage

#: Seconds from asking for a clip to its first frame: before the first one, at least and at most.
FIRST_LEAD, LEAST_LEAD, MOST_LEAD = 0.3, 0.06, 0.6
#: Latest clips by which that time is judged, and the part that is added.
JUDGED, SPARE = 4, 1.3
#: How much faster and slower than by its rate a frame may follow the one before while speech is under way.
FASTER, SLOWER = 4.0, 4.0
#: Seconds before the first frame of speech for which the face may stand still.
MOST_STILL = 0.25
#: Seconds by which a frame may be late without moving those that follow.
LATE = 0.1


class IdleLife:
    """The silent clips of one session. Times are seconds on one monotonic clock."""

    def __init__(self) -> None:
        """Ask for nothing yet."""
        #: Whether the client wants it.
        self.on = False
        self._asked: dict[int, float] = {}
        self._begun: set[int] = set()
        self._leads: deque[float] = deque([FIRST_LEAD], maxlen=JUDGED)
        #: Frames that wait, each with the seconds for which it is shown.
        self._frames: deque[tuple[VideoMessage, float]] = deque()
        self._next_at = float("-inf")

    def restart(self) -> None:
        """A new epoch begins."""
        self._asked.clear()
        self._begun.clear()
        self._frames.clear()

    # ---- asking for clips

    def ask_at(self, quiet_at: float, played_until: float, speech_at: float | None = None) -> float:
        """When the next clip is to be asked for. Infinity while one is under way, and for other clients.

        Args:
            quiet_at: when the client has sent nothing for long enough.
            played_until: when all of its speech has been played.
            speech_at: when the first frame of speech that has begun to come is expected, or None.
        """
        if not self.on or len(self._begun) < len(self._asked):
            return float("inf")
        shown_until = max(played_until, self._next_at + sum(seconds for _, seconds in self._frames))
        if speech_at is not None:
            return shown_until - self.lead if speech_at > shown_until + MOST_STILL else float("inf")
        return max(quiet_at, shown_until - self.lead)

    @property
    def lead(self) -> float:
        """Seconds before its turn at which a clip is asked for."""
        return min(MOST_LEAD, max(LEAST_LEAD, SPARE * max(self._leads)))

    def asked(self, clip: int, now: float) -> None:
        """This clip was asked for."""
        self._asked[clip] = now

    # ---- their frames

    def made(self, clip: int) -> bool:
        """Whether the clip is one of these."""
        return clip in self._asked

    def begins(self, clip: int, now: float) -> None:
        """The clip's first frame is there, or none will come."""
        self._begun.add(clip)
        self._leads.append(now - self._asked[clip])

    def ends(self, clip: int) -> None:
        """The clip is over."""
        self._asked.pop(clip, None)
        self._begun.discard(clip)

    def push(self, frame: VideoMessage, seconds: float, played_until: float) -> None:
        """Take a frame that is shown for `seconds`, none before the speech is over."""
        if not self._frames:
            self._next_at = max(self._next_at, played_until)
        self._frames.append((frame, seconds))

    def pull(self, now: float, speech_at: float | None) -> list[VideoMessage]:
        """The frames whose time has come.

        Args:
            now: the time.
            speech_at: when the first frame of speech is expected, or None.
        """
        out = []
        while self._frames and self._next_at <= now:
            frame, seconds = self._frames.popleft()
            out.append(frame)
            if speech_at is not None:
                share = (speech_at - now) / (len(self._frames) + 1)
                seconds = min(max(share, seconds / FASTER), seconds * SLOWER)
            self._next_at = max(self._next_at, now - LATE) + seconds
        return out

    def take_rest(self) -> list[VideoMessage]:
        """All frames that wait: speech begins now."""
        rest = [frame for frame, _ in self._frames]
        self._frames.clear()
        self._next_at = float("-inf")
        return rest

    def wait(self, now: float) -> float | None:
        """Seconds until `pull` gives the next frame, or None."""
        return max(0.0, self._next_at - now) if self._frames else None
