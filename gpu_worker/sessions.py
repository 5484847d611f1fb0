"""State of sessions between their clips: the last latents, the epochs that still count, the noise's seeds."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

L = TypeVar("L")

#: Seconds without a clip after which a session's latents are forgotten.
IDLE_AFTER = 60.0

#: Clips of a session whose last latent is kept. A clip that is sent again finds the clip before it, even
#: where others have followed.
KEPT_CLIPS = 4


def clip_seed(seed: int, session: str, epoch: int, seq: int) -> int:
    """The seed of a clip's noise, 63 bits. The same clip gets the same noise in any process."""
    return _seed_of(f"{seed}/{session}/{epoch}/{seq}")


def session_seed(seed: int) -> int:
    """The seed of a noise that all clips share, 63 bits. It is the same in any process."""
    return _seed_of(f"{seed}")


def _seed_of(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


class EpochFloor:
    """The lowest epoch that still counts, for each session seen lately. Not thread-safe.

    Args:
        limit: sessions remembered. Beyond it the least recent one is forgotten.
    """

    def __init__(self, limit: int = 4096) -> None:
        self._floor: OrderedDict[str, int] = OrderedDict()
        self._limit = limit

    def is_stale(self, session: str, epoch: int) -> bool:
        """Whether messages of this epoch are to be dropped."""
        return epoch < self._floor.get(session, 0)

    def raise_to(self, session: str, epoch: int) -> None:
        """Makes all epochs below `epoch` stale. The floor never falls."""
        self._floor[session] = max(epoch, self._floor.get(session, 0))
        self._floor.move_to_end(session)
        while len(self._floor) > self._limit:
            self._floor.popitem(last=False)


@dataclass
class _KeptLatents(Generic[L]):
    """The last latents of one session's clips, by seq, and when the latest was stored."""

    used: float
    by_seq: OrderedDict[int, L] = field(default_factory=OrderedDict)


class LatentTable(Generic[L]):
    """The last latent of each session's latest clips: (session, epoch, seq) → L.

    `seed-mix` and late starts need it.

    L is an array (C, h, w) in the host's memory. A session is forgotten

    - when it closes,
    - after `idle_after` seconds without a clip,
    - when more than `limit` sessions are kept and it is the least recently used.

    Thread-safe: the compute thread stores, and the loop's thread closes.

    Args:
        limit: sessions kept.
        idle_after: seconds.
        clock: seconds.
    """

    def __init__(
        self, limit: int, *, idle_after: float = IDLE_AFTER, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._idle_after = idle_after
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: OrderedDict[tuple[str, int], _KeptLatents[L]] = OrderedDict()

    def __len__(self) -> int:
        with self._lock:
            self._expire()
            return len(self._sessions)

    def before(self, session: str, epoch: int, seq: int) -> L | None:
        """The last latent of clip seq - 1.

        None where that clip was not made here: seq is the session's first, or the clip before was left out,
        comes later or went to another worker.
        """
        with self._lock:
            kept = self._sessions.get((session, epoch))
            return None if kept is None else kept.by_seq.get(seq - 1)

    def store(self, session: str, epoch: int, seq: int, last: L) -> None:
        """Keeps the last latent of clip `seq`."""
        now = self._clock()
        with self._lock:
            kept = self._sessions.setdefault((session, epoch), _KeptLatents(now))
            kept.used = now
            kept.by_seq[seq] = last
            kept.by_seq.move_to_end(seq)
            while len(kept.by_seq) > KEPT_CLIPS:
                kept.by_seq.popitem(last=False)
            self._sessions.move_to_end((session, epoch))
            self._expire()

    def close(self, session: str, epoch: int) -> None:
        """Forgets the session up to and including `epoch`."""
        with self._lock:
            for key in [key for key in self._sessions if key[0] == session and key[1] <= epoch]:
                del self._sessions[key]

    def _expire(self) -> None:
        """Forgets idle sessions and those beyond the limit, the least recently used first."""
        oldest_kept = self._clock() - self._idle_after
        while self._sessions:
            key, kept = next(iter(self._sessions.items()))
            if kept.used >= oldest_kept and len(self._sessions) <= self._limit:
                return
            del self._sessions[key]
