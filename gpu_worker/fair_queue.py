"""The clips that wait: bounded per session, in order within one, in turn between sessions."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class FairQueue(Generic[T]):
    """A queue per session, served round-robin, so that a session with a backlog delays no other.

    Within a session items leave by their key (epoch, seq), however they came. More than `depth` items of
    one session push out its oldest: what is late already would only make the rest late as well.
    Not thread-safe.
    """

    def __init__(self, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"depth {depth}: a queue holds at least one item per session")
        self._depth = depth
        self._sessions: OrderedDict[str, list[tuple[tuple[int, int], int, T]]] = OrderedDict()
        self._arrivals = 0

    def __len__(self) -> int:
        return sum(map(len, self._sessions.values()))

    def sessions(self) -> list[str]:
        """Those with something waiting, the next one first."""
        return list(self._sessions)

    def put(self, session: str, key: tuple[int, int], item: T) -> list[T]:
        """Queues `item` and returns what it pushed out."""
        waiting = self._sessions.setdefault(session, [])
        self._arrivals += 1  # ties between equal keys; items themselves need no order
        bisect.insort(waiting, (key, self._arrivals, item), key=lambda entry: entry[:2])
        pushed = waiting[: -self._depth]
        del waiting[: -self._depth]
        return [item for _, _, item in pushed]

    def pop(self) -> T | None:
        """The next item of the session whose turn it is, None if nothing waits."""
        if not self._sessions:
            return None
        session, waiting = next(iter(self._sessions.items()))
        item = waiting.pop(0)[2]
        if waiting:
            self._sessions.move_to_end(session)
        else:
            del self._sessions[session]
        return item

    def remove(self, session: str, epoch: int) -> list[T]:
        """Takes out and returns the session's items up to and including `epoch`."""
        waiting = self._sessions.get(session, [])
        gone = [item for key, _, item in waiting if key[0] <= epoch]
        kept = [entry for entry in waiting if entry[0][0] > epoch]
        if kept:
            self._sessions[session] = kept
        else:
            self._sessions.pop(session, None)
        return gone
