"""Counts and delays of a session, for its client, for `/metrics` and for the log."""

from __future__ import annotations

from gateway.core.event_rate import EventRate
from gateway.core.players import OutgoingMessage
from gateway.core.reorder import ClipEnds
from protocol.wire.figures import CLIP_TIME_BOUNDS_MS, Histogram, Summary
from protocol.wire.messages import Frame

#: A client may be this many clips behind, and their latency is still counted.
REMEMBERED_CLIPS = 64
#: Seconds from a clip's last sample to its first frame that are expected before any was measured.
USUAL_DELAY = 0.3


class SessionCounts:
    """Counts from 0."""

    def __init__(self, first_frames: Histogram | None = None) -> None:
        """`first_frames`: where the gateway counts the delays of all sessions' first frames."""
        #: From a clip's last sample to its first frame sent.
        self.latency = Summary()
        #: The same of the clip that came last.
        self.last_delay = USUAL_DELAY
        self.frame_rate = EventRate()
        self.frames_sent = 0
        self.clips_done = 0
        self.clips_failed = 0
        self.frames_lost = 0
        self.duplicates = 0
        #: Frames of the clip that came last: a machine that is busy makes fewer than were asked for.
        self.frames_of_clip = 0
        #: Width and height of the frame that came last, in pixels. None before any came.
        self.picture_size: tuple[int, int] | None = None
        #: Why the last clip failed.
        self.last_failure = ""
        self._first_frames = first_frames or Histogram(CLIP_TIME_BOUNDS_MS)
        #: Clips whose first frame is not sent yet → when their last sample came.
        self._unanswered: dict[int, float] = {}

    def count_made(self, frame: Frame) -> None:
        """An encoder has made this frame."""
        self.frames_of_clip = frame.count
        self.picture_size = frame.width, frame.height

    def count_sent(self, message: OutgoingMessage, now: float) -> None:
        """This message goes to the client."""
        if message.first_frame_of is not None and message.first_frame_of in self._unanswered:
            self.last_delay = now - self._unanswered.pop(message.first_frame_of)
            self.latency.add(self.last_delay)
            self._first_frames.add(self.last_delay)
        if message.is_frame:
            self.frames_sent += 1
            self.frame_rate.add(now)

    def count_end(self, clip: ClipEnds) -> None:
        """This clip of speech is over."""
        self.frames_lost += clip.missing
        self.clips_failed += clip.missing > 0
        self.clips_done += 1
        self._unanswered.pop(clip.seq - REMEMBERED_CLIPS, None)
