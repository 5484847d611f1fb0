"""Counters, gauges and latency windows that turn into a flat map of floats. Safe to use from any thread."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}


class Window:
    """The last `size` values of a quantity, with its count and sum since the start."""

    def __init__(self, size: int = 512) -> None:
        self._values: deque[float] = deque(maxlen=size)
        self._lock = threading.Lock()
        self.count = 0
        self.sum = 0.0

    def add(self, value: float) -> None:
        with self._lock:
            self._values.append(value)
            self.count += 1
            self.sum += value

    def figures(self, name: str) -> dict[str, float]:
        """`name_count`, `name_sum`, and once there is a value `name_p50`, `_p95`, `_p99` of the window."""
        with self._lock:
            values = sorted(self._values)
            figures = {f"{name}_count": float(self.count), f"{name}_sum": self.sum}
        if values:
            figures |= {f"{name}_{label}": quantile(values, q) for label, q in QUANTILES.items()}
        return figures


def quantile(ordered: list[float], q: float) -> float:
    """The q-quantile of sorted, non-empty values, interpolated between neighbours."""
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


class Metrics:
    """Figures by name: `_total` counts up, `_seconds` and the like are windows, the rest are gauges."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, float] = {}
        self._windows: dict[str, Window] = {}

    def count(self, name: str, by: float = 1) -> None:
        """Add to a counter; its name should end in `_total`."""
        with self._lock:
            self._values[name] = self._values.get(name, 0.0) + by

    def gauge(self, name: str, value: float) -> None:
        with self._lock:
            self._values[name] = float(value)

    def observe(self, name: str, value: float) -> None:
        """Add to a window; its name should end in its unit, such as `_seconds`."""
        with self._lock:
            window = self._windows.setdefault(name, Window())
        window.add(value)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Observe how many seconds the body took."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.observe(name, time.perf_counter() - begin)

    def snapshot(self, *extra: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Every figure, and those of `extra` sources, without the ones that are not finite."""
        with self._lock:
            figures = dict(self._values)
            windows = list(self._windows.items())
        for name, window in windows:
            figures |= window.figures(name)
        for source in extra:
            figures |= source()
        return {name: value for name, value in figures.items() if math.isfinite(value)}
