"""When the avatar begins to speak, ends, and is idle, told to the client with the place in the stream."""

from __future__ import annotations

#: Seconds after the end of speech at which the avatar counts as idle.
IDLE_AFTER = 2.0

#: A text's type and its fields.
Event = tuple[str, dict[str, int]]


class SpeechEvents:
    """Follows the clips that are played. Times are seconds on one monotonic clock."""

    def __init__(self) -> None:
        """Nothing is spoken yet."""
        self._waiting: list[Event] = []
        self._speaking = False
        self._epoch = 0
        #: pts at which the last clip's sound ends.
        self._end_pts = 0
        self._idle_at = float("inf")

    def clip_begins(self, epoch: int, pts: int, end_pts: int) -> None:
        """The sound of a clip, from `pts` to `end_pts`, goes to the client."""
        if not self._speaking:
            self._waiting.append(("speech_started", {"epoch": epoch, "pts": pts}))
        self._speaking, self._epoch, self._end_pts = True, epoch, end_pts
        self._idle_at = float("inf")

    def silent_clip(self, epoch: int, pts: int, now: float) -> None:
        """A clip without a voice begins, of a client whose sound never stops."""
        if self._speaking:
            self._epoch, self._end_pts = epoch, pts
            self._end(now)

    def look(self, now: float, played_until: float, more: bool) -> None:
        """Find an end.

        Args:
            now: the time.
            played_until: when the last clip has been played.
            more: whether other speech waits.
        """
        if self._speaking and not more and now >= played_until:
            self._end(now)
        if now >= self._idle_at:
            self._idle_at = float("inf")
            self._waiting.append(("idle", {"epoch": self._epoch, "pts": self._end_pts}))

    def interrupted(self, now: float) -> None:
        """The speech was cut off."""
        if self._speaking:
            self._end(now)

    def take(self) -> list[Event]:
        """The events since the last call."""
        events, self._waiting = self._waiting, []
        return events

    def _end(self, now: float) -> None:
        self._speaking = False
        self._idle_at = now + IDLE_AFTER
        self._waiting.append(("speech_ended", {"epoch": self._epoch, "pts": self._end_pts}))
