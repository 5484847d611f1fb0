"""The places in the stream of the frames that a client has shown."""

from __future__ import annotations

from protocol.wire.controls import Shown
from protocol.wire.messages import Frame

#: Frames whose pts is remembered.
REMEMBERED_FRAMES = 512


class ShownPlaces:
    """The frames sent and shown in one epoch."""

    def __init__(self) -> None:
        #: pts of the last frame that the client has shown.
        self.last: int | None = None
        self._pts: dict[tuple[int, int], int] = {}

    def sent(self, frame: Frame) -> None:
        """This frame goes to the client."""
        self._pts[frame.seq, frame.index] = frame.pts
        if len(self._pts) > REMEMBERED_FRAMES:
            del self._pts[next(iter(self._pts))]

    def shown(self, shown: Shown) -> None:
        """The client has put this frame on its screen."""
        self.last = self._pts.get((shown.seq, shown.index), self.last)
