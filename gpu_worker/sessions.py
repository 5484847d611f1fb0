"""What is remembered of sessions between their clips."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

L = TypeVar("L")

IDLE_AFTER = 60.0
KEPT_CLIPS = 4  # a clip that is sent again must find the clip before it, however soon others followed


def clip_seed(seed: int, session: str, epoch: int, seq: int) -> int:
    """The seed of a clip's noise, 63 bits: the same clip sent again, anywhere, gets the same noise."""
    text = f"{seed}/{session}/{epoch}/{seq}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1


class EpochFloor:
    """The least epoch that still counts, of the sessions seen lately; older work is dropped.

    Not thread-safe.
    """

    def __init__(self, limit: int = 4096) -> None:
        self._floor: OrderedDict[str, int] = OrderedDict()
        self._limit = limit

    def is_stale(self, session: str, epoch: int) -> bool:
        return epoch < self._floor.get(session, 0)

    def raise_to(self, session: str, epoch: int) -> None:
        """Epochs below `epoch` are of the past from now on."""
        self._floor[session] = max(epoch, self._floor.get(session, 0))
        self._floor.move_to_end(session)
        while len(self._floor) > self._limit:
            self._floor.popitem(last=False)


@dataclass
class _Session(Generic[L]):
    used: float
    ends: OrderedDict[int, L] = field(default_factory=OrderedDict)


class LatentTable(Generic[L]):
    """The last latent of each session's latest clips (latent preservation): (session, epoch, seq) → L.

    L is a tensor (C, h, w) that stays on the device. A session is forgotten when it closes, after
    `idle_after` seconds without a clip, and, least recently used first, beyond `limit` sessions.
    Thread-safe: clips end in the compute thread, sessions in the main thread.
    """

    def __init__(
        self, limit: int, *, idle_after: float = IDLE_AFTER, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._idle_after = idle_after
        self._clock = clock
        self._lock = threading.Lock()
        self._sessions: OrderedDict[tuple[str, int], _Session[L]] = OrderedDict()

    def __len__(self) -> int:
        with self._lock:
            self._expire()
            return len(self._sessions)

    def before(self, session: str, epoch: int, seq: int) -> L | None:
        """The last latent of clip seq - 1; None if not made here: first, re-dispatched, out of order."""
        with self._lock:
            known = self._sessions.get((session, epoch))
            return None if known is None else known.ends.get(seq - 1)

    def store(self, session: str, epoch: int, seq: int, last: L) -> None:
        now = self._clock()
        with self._lock:
            known = self._sessions.setdefault((session, epoch), _Session(now))
            known.used = now
            known.ends[seq] = last
            known.ends.move_to_end(seq)
            while len(known.ends) > KEPT_CLIPS:
                known.ends.popitem(last=False)
            self._sessions.move_to_end((session, epoch))
            self._expire()

    def close(self, session: str, epoch: int) -> None:
        """Forgets the session up to and including `epoch`."""
        with self._lock:
            for key in [key for key in self._sessions if key[0] == session and key[1] <= epoch]:
                del self._sessions[key]

    def _expire(self) -> None:
        oldest_kept = self._clock() - self._idle_after
        while self._sessions:
            key, known = next(iter(self._sessions.items()))
            if known.used >= oldest_kept and len(self._sessions) <= self._limit:
                return
            del self._sessions[key]
