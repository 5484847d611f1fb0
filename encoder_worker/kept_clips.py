"""Coded pictures of clips that come again: those in which nobody speaks. They are decoded and coded once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator

import numpy as np

from encoder_worker.video import CodedPicture
from protocol.wire.messages import Array16

#: Bytes of coded pictures kept. A pose of 12 s has 3 MB as JPEG at 256² and 10 MB at 768².
MOST_BYTES = 64 * 2**20

#: Height and width of a clip's pictures, and some of them coded, in order.
Coded = tuple[tuple[int, int], list[CodedPicture]]


def clip_digest(latents: Array16) -> bytes:
    """What a clip's pictures depend on, in 16 bytes. Any encoder finds the same."""
    digest = hashlib.blake2b(str(latents.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(latents).reshape(-1).view(np.uint8).data)
    return digest.digest()


class KeptClips:
    """Coded clips by key. Beyond the budget those go that were not asked for for longest. Of one thread.

    Args:
        budget: bytes of coded pictures.
    """

    #: Clips that were given again.
    hits: int
    #: Bytes of coded pictures kept.
    size: int

    def __init__(self, budget: int = MOST_BYTES) -> None:
        self._budget = budget
        self._kept: OrderedDict[tuple[bytes, str], list[Coded]] = OrderedDict()
        self.hits = self.size = 0

    def through(self, key: tuple[bytes, str], make: Callable[[], Iterator[Coded]]) -> Iterator[Coded]:
        """The coded pictures under a key, a few at a time: kept ones, or those that `make` gives.

        Args:
            key: `clip_digest` of the latents, and the name of the code with all that it depends on.
            make: codes the clip. It is kept once all of it was taken.
        """
        if key in self._kept:
            self.hits += 1
            self._kept.move_to_end(key)
            yield from self._kept[key]
            return
        made = []
        for part in make():
            made.append(part)
            yield part
        self._kept[key] = made
        self.size += _size(made)
        while self.size > self._budget:
            self.size -= _size(self._kept.popitem(last=False)[1])


def _size(parts: list[Coded]) -> int:
    return sum(len(picture.data) for _, pictures in parts for picture in pictures)
