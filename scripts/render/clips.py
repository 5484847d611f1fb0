"""Which clips of the sound are to be sent, are under way, or are complete.

No sockets and no clock. Pictures leave in order. After a failure all clips that have not left begin again in
a new epoch, because each is made from the state that the one before it left.
"""

from __future__ import annotations

from protocol.wire.messages import Frame
from scripts.render.errors import RenderError

#: Clips: one that Whisper hears, one prepared, one denoised, one decoded. None of the queues overflows.
UNDER_WAY = 4
#: Times that a clip is tried before the film is given up.
MOST_TRIES = 4


class ClipLedger:
    """The clips of one film.

    Args:
        clips: number of clips.
        clip_frames: frames of each.
    """

    #: Of the clips that are under way.
    epoch: int
    #: Clips whose pictures have left. The next one has this number.
    left: int

    def __init__(self, clips: int, clip_frames: int) -> None:
        self.epoch = 0
        self.left = 0
        self._clips = clips
        self._clip_frames = clip_frames
        self._sent = 0
        self._tries = 1
        #: The first clip under way that will not come, and why.
        self._failed: tuple[int, str] | None = None
        #: JPEGs by their index, for each clip under way.
        self._pictures: dict[int, dict[int, bytes]] = {}

    @property
    def finished(self) -> bool:
        """Whether all pictures have left."""
        return self.left == self._clips

    def next_to_send(self) -> int | None:
        """The clip whose sound is to be sent now. None: enough are under way, or one of them failed."""
        if self._failed is not None or self._sent == self._clips or self._sent - self.left >= UNDER_WAY:
            return None
        self._sent += 1
        return self._sent - 1

    def add_frame(self, frame: Frame) -> bool:
        """Keep the frame. Returns whether its clip is to be confirmed: it is complete or not wanted.

        Raises:
            RenderError: the clip has another number of frames than was asked for.
        """
        if frame.epoch != self.epoch or not self.left <= frame.seq < self._sent:
            return True
        if frame.count != self._clip_frames:
            raise RenderError(
                f"clip {frame.seq} came with {frame.count} frames and {self._clip_frames} were asked for"
            )
        pictures = self._pictures.setdefault(frame.seq, {})
        pictures[frame.index] = frame.data
        return len(pictures) == self._clip_frames

    def take_clip(self) -> list[bytes] | None:
        """The JPEGs of the next clip in order, or None while it is not complete."""
        if len(self._pictures.get(self.left, ())) < self._clip_frames:
            return None
        pictures = self._pictures.pop(self.left)
        self.left += 1
        self._tries = 1
        return [pictures[index] for index in range(self._clip_frames)]

    def note_failure(self, seq: int, epoch: int, reason: str) -> None:
        """A clip will not come. The ones before it still may."""
        known = (
            epoch != self.epoch or seq < self.left or (self._failed is not None and self._failed[0] <= seq)
        )
        if not known:
            self._failed = seq, reason

    @property
    def failure(self) -> str:
        """Why the next clip in order will not come. Empty while it may."""
        return self._failed[1] if self._failed is not None and self._failed[0] <= self.left else ""

    def begin_again(self, reason: str, *, counts: bool = True) -> int:
        """Begin a new epoch with the next clip in order. Returns that clip's number.

        Args:
            reason: of the failure, for people.
            counts: whether the clip was tried. It was not where a worker had gone.

        Raises:
            RenderError: it has been tried `MOST_TRIES` times.
        """
        if counts and self._tries == MOST_TRIES:
            raise RenderError(f"clip {self.left} failed {MOST_TRIES} times, lastly: {reason}")
        self._tries += counts
        self.epoch += 1
        self._sent = self.left
        self._failed = None
        self._pictures.clear()
        return self.left
