"""How often an event happens."""

from __future__ import annotations

from collections import deque


class EventRate:
    """Events a second over the last `span` seconds."""

    def __init__(self, span: float = 2.0) -> None:
        self._span = span
        self._times: deque[float] = deque()

    def add(self, now: float) -> None:
        """Count one event."""
        self._times.append(now)
        self._forget_old(now)

    def per_second(self, now: float) -> float:
        """The rate at this moment."""
        self._forget_old(now)
        return len(self._times) / self._span

    def _forget_old(self, now: float) -> None:
        while self._times and self._times[0] <= now - self._span:
            self._times.popleft()
