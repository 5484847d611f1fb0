"""The clips that wait: bounded per session, in order within one, in turn between sessions."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


SESSIONS_REMEMBERED = 1024


class FairQueue(Generic[T]):
    """A queue per session, the one served longest ago first, so that no session's backlog delays another's.

    Within a session items leave by their key (epoch, seq), however they came. More than `depth` items of
    one session push out its oldest: what is late already would only make the rest late as well.
    Not thread-safe.
    """

    def __init__(self, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"depth {depth}: a queue holds at least one item per session")
        self._depth = depth
        self._sessions: dict[str, list[tuple[tuple[int, int], int, T]]] = {}
        self._served: OrderedDict[str, int] = OrderedDict()
        self._arrivals = 0
        self._turns = 0

    def __len__(self) -> int:
        return sum(map(len, self._sessions.values()))

    def sessions(self) -> list[str]:
        """Those with something waiting."""
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
        session = min(self._sessions, key=lambda s: (self._served.get(s, 0), self._sessions[s][0][1]))
        item = self._sessions[session].pop(0)[2]
        if not self._sessions[session]:
            del self._sessions[session]
        self._turns += 1
        self._served[session] = self._turns
        self._served.move_to_end(session)
        if len(self._served) > SESSIONS_REMEMBERED:
            self._served.popitem(last=False)
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
