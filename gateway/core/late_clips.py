"""How long a session waits for the frames of its next clip, and when its sound goes out without them."""

from __future__ import annotations

from gateway.core.audio_log import ClipAudio
from gateway.core.options import SessionLimits


def sound_due(audio: ClipAudio, played_until: float, outage: bool, limits: SessionLimits) -> float:
    """When the sound of a complete clip goes out, with or without frames.

    Its turn comes when the clip before it has been played. It is put off for a while to wait for frames,
    unless none can come or the sound would fall too far behind.

    Args:
        audio: the clip's.
        played_until: when the clip before has been played.
        outage: whether no frames can come.
        limits: the session's.
    """
    spoken_at = audio.ended_at
    turn = max(spoken_at, played_until)
    if outage:
        return turn
    return max(turn, min(turn + limits.sound_wait, spoken_at + limits.sound_delay))


class Overtaking:
    """How long a later clip has been complete while the next clip is waited for, in one epoch."""

    def __init__(self) -> None:
        self._clip = -1
        self._since = 0.0

    def waited(self, clip: int, now: float) -> float:
        """Seconds for which this clip has been overtaken, counted from the first call about it."""
        if self._clip != clip:
            self._clip, self._since = clip, now
        return now - self._since
