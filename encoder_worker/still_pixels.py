"""Still pixels stay as they were shown, where the decoder computes in eight bits.

Rounding to eight bits moves pixels of background and clothes by a level from picture to picture. JPEG then
changes whole blocks of 8×8. So a value that differs by one level from the picture shown before keeps what was
shown. All others pass as they are, so nothing trails behind what moves. No value is ever further than a level
from the decoder's. docs/lab/bundled-model.md has the figures.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from encoder_worker.jpeg import Picture
from protocol.wire.messages import ClipKey

PictureValues = npt.NDArray[np.uint8]

#: Levels of 255 by which a value may differ from what was shown and yet keep it.
HELD = 1

#: Values that are compared at once. More of them leave the processor's cache between two steps.
AT_ONCE = 3 * 2**16

#: Kinds of clips: those of one session, silent ones that sessions share, and silent ones of an own avatar.
SPOKEN, SILENT, OWN_SILENT = "spoken", "silent", "own silent"

#: Sessions whose last picture is kept. One has 0.8 MB at 512².
MOST_SESSIONS = 16

#: Seconds for which a session's last picture is kept. While somebody speaks, clips come twice a second or
#: more often. Nobody tells an encoder that a session has ended.
KEPT_SECONDS = 5.0


def held(pictures: Picture, before: Picture | None) -> Picture:
    """The pictures with still values held, as a new array.

    Args:
        pictures: (n, H, W, 3) as decoded, in order.
        before: (H, W, 3) as it was shown right before them, or None. One of another size counts as none.
    """
    made = np.empty(pictures.shape, np.uint8)
    last = pictures[0] if before is None or before.shape != pictures.shape[1:] else before
    work = np.empty((3, min(AT_ONCE, last.size)), np.uint8)
    for picture, shown in zip(pictures, made, strict=True):
        values, shown_before, shows = picture.reshape(-1), last.reshape(-1), shown.reshape(-1)
        for start in range(0, last.size, AT_ONCE):
            part = slice(start, start + AT_ONCE)
            _hold(values[part], shown_before[part], shows[part], work)
        last = shown
    return made


def _hold(values: PictureValues, before: PictureValues, shown: PictureValues, work: PictureValues) -> None:
    """Writes some values as they are to be shown into `shown`. `work` is room for three times as many."""
    greater, other, still = work[:, : len(values)]
    np.maximum(values, before, out=greater)
    np.minimum(values, before, out=other)
    np.subtract(greater, other, out=greater)
    np.less_equal(greater, HELD, out=still.view(np.bool_))
    # A still value goes all the way back to what was shown, and another one nowhere. Sums wrap around at 256.
    # Choosing by a product takes an eighth of the time of np.where.
    np.subtract(before, values, out=other)
    np.multiply(other, still, out=other)
    np.add(values, other, out=shown)


@dataclass(frozen=True, slots=True, eq=False)
class _LastPicture:
    """The last picture of a clip, (H, W, 3) as it was shown, the clip's kind, and when it was made."""

    clip: ClipKey
    kind: str
    picture: Picture
    at: float


class StillPixels:
    """Holds the still pixels of clips, from each clip of a session to its next one. Thread-safe.

    Coded pictures of silent clips are kept and shared (`kept_clips`, `kept_pictures`). A loop is made in
    order, so each of its clips goes on from the one before. It never goes on from clips of one session alone.

    Args:
        most_sessions: whose last pictures are kept.
        clock: seconds.
    """

    def __init__(
        self, most_sessions: int = MOST_SESSIONS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._most_sessions = most_sessions
        self._clock = clock
        self._lock = threading.Lock()
        #: By session, the oldest first.
        self._last: OrderedDict[str, _LastPicture] = OrderedDict()

    def __len__(self) -> int:
        """Sessions whose last picture is kept."""
        return len(self._last)

    def through(self, clip: ClipKey, decoded: Iterator[Picture], kind: str = SPOKEN) -> Iterator[Picture]:
        """The pictures of a clip, (n, H, W, 3) at a time, with still values held.

        Args:
            clip: session, epoch and number. Its pictures go on from those of the clip right before, if that
                went through here last and whole.
            decoded: the pictures as decoded.
            kind: who may see the clip, of `SPOKEN`, `SILENT` and `OWN_SILENT`. A silent clip goes on only
                from one of its own kind.
        """
        last = self._take_before(clip, kind)
        for pictures in decoded:
            made = held(pictures, last)
            last = made[-1]
            yield made
        if last is not None:
            self._keep(_LastPicture(clip, kind, last, self._clock()))

    def forget_old(self) -> None:
        """Drops the pictures of sessions that have had no clip lately. To be called often."""
        oldest = self._clock() - KEPT_SECONDS
        with self._lock:
            while self._last and next(iter(self._last.values())).at < oldest:
                self._last.popitem(last=False)

    def _take_before(self, clip: ClipKey, kind: str) -> Picture | None:
        """The last picture of the clip right before. Until this one is whole, the session has none."""
        session, epoch, number = clip
        with self._lock:
            last = self._last.pop(session, None)
        if last is None or last.clip != (session, epoch, number - 1) or kind not in (SPOKEN, last.kind):
            return None
        return last.picture

    def _keep(self, last: _LastPicture) -> None:
        with self._lock:
            self._last[last.clip[0]] = last
            if len(self._last) > self._most_sessions:
                self._last.popitem(last=False)
