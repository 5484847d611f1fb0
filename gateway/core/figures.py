"""How often something happens."""

from __future__ import annotations

from collections import deque


class Rate:
    """Events a second over the last `span` seconds."""

    def __init__(self, span: float = 2.0) -> None:
        self._span = span
        self._times: deque[float] = deque()

    def add(self, now: float) -> None:
        self._times.append(now)
        self._trim(now)

    def value(self, now: float) -> float:
        self._trim(now)
        return len(self._times) / self._span

    def _trim(self, now: float) -> None:
        while self._times and self._times[0] <= now - self._span:
            self._times.popleft()
