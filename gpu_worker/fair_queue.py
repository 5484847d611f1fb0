"""The clips that wait: bounded per session, in order within one, in turn between sessions."""

from __future__ import annotations

import bisect
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")

#: Sessions whose last turn is remembered. A session beyond them counts as never served.
SESSIONS_REMEMBERED = 1024


class FairQueue(Generic[T]):
    """A queue for each session. The session served longest ago comes next, so none delays another.

    Within a session, items leave in the order of their keys (epoch, seq), whatever order they came in. Not
    thread-safe.

    Args:
        depth: items that a session may have waiting. One more pushes out the oldest: it is late already, and
            keeping it would make the others late as well.

    Raises:
        ValueError: depth is below 1.
    """

    def __init__(self, depth: int) -> None:
        if depth < 1:
            raise ValueError(f"depth {depth}: a queue holds at least one item per session")
        self._depth = depth
        #: By session: (key, number of arrival, item), in the order of leaving.
        self._sessions: dict[str, list[tuple[tuple[int, int], int, T]]] = {}
        #: By session: the number of its last turn, the least recent first.
        self._served: OrderedDict[str, int] = OrderedDict()
        self._arrivals = 0
        self._turns = 0

    def __len__(self) -> int:
        return sum(map(len, self._sessions.values()))

    def sessions(self) -> list[str]:
        """The sessions that have items waiting."""
        return list(self._sessions)

    def put(self, session: str, key: tuple[int, int], item: T, depth: int = 0) -> list[T]:
        """Queues `item` under its key (epoch, seq) and returns the items that it pushed out.

        Args:
            session: its session.
            key: its place among the session's items.
            item: to queue.
            depth: items that this session may have waiting, where that is more than of others.
        """
        waiting = self._sessions.setdefault(session, [])
        self._arrivals += 1  # orders equal keys, so that items themselves are never compared
        bisect.insort(waiting, (key, self._arrivals, item), key=lambda entry: entry[:2])
        depth = max(depth, self._depth)
        pushed = waiting[:-depth]
        del waiting[:-depth]
        return [item for _, _, item in pushed]

    def pop(self) -> T | None:
        """Takes the next item of the session whose turn it is, or None if nothing waits."""
        if not self._sessions:
            return None
        # Sessions that had no turn yet come first, in the order of their arrival.
        session = min(self._sessions, key=lambda s: (self._served.get(s, 0), self._sessions[s][0][1]))
        item = self.take_next(session)
        self._turns += 1
        self._served[session] = self._turns
        self._served.move_to_end(session)
        if len(self._served) > SESSIONS_REMEMBERED:
            self._served.popitem(last=False)
        return item

    def next_of(self, session: str) -> T | None:
        """The session's next item, which stays in the queue, or None if it has none."""
        waiting = self._sessions.get(session)
        return waiting[0][2] if waiting else None

    def take_next(self, session: str) -> T:
        """Takes the session's next item, whoever's turn it is. There must be one."""
        item = self._sessions[session].pop(0)[2]
        if not self._sessions[session]:
            del self._sessions[session]
        return item

    def remove(self, session: str, epoch: int) -> list[T]:
        """Takes out and returns the session's items up to and including `epoch`."""
        waiting = self._sessions.get(session, [])
        removed = [item for key, _, item in waiting if key[0] <= epoch]
        kept = [entry for entry in waiting if entry[0][0] > epoch]
        if kept:
            self._sessions[session] = kept
        else:
            self._sessions.pop(session, None)
        return removed
