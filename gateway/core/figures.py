"""Latency and rate figures over a sliding window."""

from __future__ import annotations

import math
from collections import deque


class Window:
    """The last `size` values; quantiles by nearest rank."""

    def __init__(self, size: int = 512) -> None:
        self._values: deque[float] = deque(maxlen=size)
        self.count = 0
        self.total = 0.0

    def add(self, value: float) -> None:
        self._values.append(value)
        self.count += 1
        self.total += value

    def quantile(self, q: float) -> float | None:
        """The q-quantile (0 < q <= 1) of the window; None while it is empty."""
        if not self._values:
            return None
        ordered = sorted(self._values)
        return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


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
