"""When each clip is played: clips follow each other, and each waits until it is complete.

Speech comes in at real time and goes out at real time. So a clip starts when it is ready or when the clip
before it ends, whichever is later. The clock's delay is therefore the largest one that the pipeline has shown
since the client last paused. A clip that comes after its turn makes its frames late.
"""

from __future__ import annotations

from gateway.core.audio_log import ClipAudio, ClipShape
from protocol.wire.clock import SAMPLE_RATE

#: A frame counts as late from this many seconds past its time on. A client's jitter buffer takes less.
LATE_AFTER = 0.1


class PlayClock:
    """The time at which each clip and each of its frames is played."""

    def __init__(self, shape: ClipShape) -> None:
        self._shape = shape
        self._clip_pts = 0
        self.start = 0.0
        self.end = float("-inf")
        self.late_frames = 0

    def reshape(self, shape: ClipShape) -> None:
        """A new epoch begins: forget the clips that were to be played."""
        self._shape = shape
        self.end = float("-inf")

    def begin(self, audio: ClipAudio, ready: float) -> float:
        """When the clip of `audio`, ready at `ready`, starts. Counts the frames that this makes late."""
        behind = ready - self.end
        if audio.joined and behind > LATE_AFTER:
            self.late_frames += int(min(self._shape.frames - 1, behind * self._shape.fps)) + 1
        self.start = max(ready, self.end)
        silence = audio.pts - self._shape.pts(audio.clip)  # in front of it, which nobody hears
        self.end = self.start + self._shape.seconds - silence / SAMPLE_RATE
        self._clip_pts = audio.pts
        return self.start

    def due(self, pts: int) -> float:
        """When the frame at `pts` of the clip that began last is shown."""
        return self.start + (pts - self._clip_pts) / SAMPLE_RATE

    def arrived(self, pts: int, now: float) -> None:
        """Count the frame as late if its time has passed."""
        if now > self.due(pts) + LATE_AFTER:
            self.late_frames += 1
