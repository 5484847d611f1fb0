"""Coded pictures of clips that come again: those in which nobody speaks. They are decoded and coded once."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from encoder_worker.video import CodedPicture
from protocol.wire.messages import Array16

#: Bytes of coded pictures kept. A pose of 12 s has 3 MB as JPEG at 256², and 10 MB at 768² of drawn figures.
#: Photographs take up to three times as much, and the noise of random weights 72 MB at 512²: of that, 64 MB
#: held not even one gesture.
MOST_BYTES = 256 * 2**20

#: Seconds for which coded pictures of somebody's own avatar are kept after they were asked for. A gesture of
#: 12 s comes round in less.
PRIVATE_SECONDS = 30.0

#: The same for all others. A rate or a length of clips that served for a while leaves clips that nobody asks
#: for again.
KEPT_SECONDS = 600.0

#: Seconds after which a clip may give way to a new one where all of them do not fit. A gesture comes round in
#: less, also between turns of speech. If a newer clip always took the place of the oldest one, a gesture
#: larger than the budget would push out each of its clips just before it comes again.
COMES_AGAIN = 60.0

#: Height and width of a clip's pictures, and some of them coded, in order.
Coded = tuple[tuple[int, int], list[CodedPicture]]

#: `clip_digest` of a clip's latents, and the name of the code with all that it depends on.
PicturesKey = tuple[bytes, str]


def clip_digest(latents: Array16) -> bytes:
    """What a clip's pictures depend on, in 16 bytes. Any encoder finds the same."""
    digest = hashlib.blake2b(str(latents.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(latents).reshape(-1).view(np.uint8).data)
    return digest.digest()


@dataclass
class _KeptClip:
    """A coded clip, whether it shows somebody's own avatar, and when it was asked for last."""

    parts: list[Coded]
    private: bool
    used: float


class KeptClips:
    """Coded clips by key, up to a budget. Thread-safe.

    Where a new clip does not fit, those go that nobody asked for in `COMES_AGAIN` seconds, the oldest first.
    If that is not enough, the new clip is not kept.

    Every clip goes `KEPT_SECONDS` after it was asked for last. One of somebody's own avatar goes
    `PRIVATE_SECONDS` after that: an avatar that was removed is not asked for any more.

    Args:
        budget: bytes of coded pictures.
        clock: seconds.
    """

    #: Clips that were given again.
    hits: int
    #: Bytes of coded pictures kept.
    size: int

    def __init__(self, budget: int = MOST_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget = budget
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[PicturesKey, _KeptClip] = OrderedDict()
        self.hits = self.size = 0

    def get(self, key: PicturesKey) -> list[Coded] | None:
        """The coded pictures under a key, if they are kept."""
        with self._lock:
            kept = self._kept.get(key)
            if kept is None:
                return None
            self.hits += 1
            kept.used = self._clock()
            self._kept.move_to_end(key)
            return kept.parts

    def through(
        self, key: PicturesKey, make: Callable[[], Iterator[Coded]], *, private: bool = False
    ) -> Iterator[Coded]:
        """The coded pictures under a key, a few at a time: kept ones, or those that `make` gives.

        Args:
            key: of the clip.
            make: codes the clip. It is kept once all of it was taken.
            private: whether it shows somebody's own avatar.
        """
        if (kept := self.get(key)) is not None:
            yield from kept
            return
        made: list[Coded] = []
        yield from noted(make(), made)
        with self._lock:
            # another thread may have made it
            if key not in self._kept and self._make_room(coded_bytes(made)):
                self._kept[key] = _KeptClip(made, private, self._clock())
                self.size += coded_bytes(made)

    def forget_old(self) -> None:
        """Drops the clips that were not asked for lately. To be called often."""
        now = self._clock()
        with self._lock:
            for key in [key for key, kept in self._kept.items() if now - kept.used > _lasts(kept)]:
                self.size -= coded_bytes(self._kept.pop(key).parts)

    def _make_room(self, size: int) -> bool:
        """Drops old clips until `size` bytes fit. Returns whether they do."""
        oldest = self._clock() - COMES_AGAIN
        while self.size + size > self._budget:
            key, kept = next(iter(self._kept.items()), (None, None))
            if key is None or kept is None or kept.used >= oldest:
                return False
            del self._kept[key]
            self.size -= coded_bytes(kept.parts)
        return True


def noted(parts: Iterator[Coded], made: list[Coded]) -> Iterator[Coded]:
    """The parts of a clip as they are made. Each is added to `made` before it is given."""
    for part in parts:
        made.append(part)
        yield part


def coded_bytes(parts: list[Coded]) -> int:
    """Bytes of a clip's coded pictures."""
    return sum(len(picture.data) for _, pictures in parts for picture in pictures)


def _lasts(kept: _KeptClip) -> float:
    return PRIVATE_SECONDS if kept.private else KEPT_SECONDS
