"""Figures that turn into the flat map of floats that Status carries: summaries and histograms.

The gateway tells the kinds apart by how the names end:
- A counter ends in `_total`.
- A summary has `_count`, `_sum` and, once it has a value, `_p50`, `_p95`, `_p99`.
- A histogram has `_count`, `_sum` and one figure such as `_bucket_5ms` for each bound.
- Any other name is a gauge.

Everything here is safe to use from any thread.
"""

from __future__ import annotations

import bisect
import math
import threading
from collections import deque

QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}

#: Bounds of the time that a clip takes, in milliseconds. A clip lasts 500 ms: a stage that takes longer falls
#: behind, so 500 is a bound, and those below it are close enough to tell GPUs apart (their first frame comes
#: after 110 to 300 ms). CPUs need 500 to 2000 ms. A clip is given up after 7 to 15 s.
CLIP_TIME_BOUNDS_MS = (10, 25, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 5000, 10000)
#: Bounds of the time that a message waits for a worker, in milliseconds. A free worker takes it within 1 ms.
#: At most two clips (1000 ms) of a session wait, and workers that die are noticed within 5 s.
QUEUE_WAIT_BOUNDS_MS = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000)


class Histogram:
    """Counts of values at or below each bound since the start, with the values' count and sum."""

    def __init__(self, bounds_ms: tuple[int, ...]) -> None:
        """`bounds_ms`: upper bounds in milliseconds, rising."""
        self._bounds_ms = bounds_ms
        self._lock = threading.Lock()
        self._counts = [0] * (len(bounds_ms) + 1)  # the last one: above every bound
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        """Count one value."""
        place = bisect.bisect_left(self._bounds_ms, seconds * 1000)
        with self._lock:
            self._counts[place] += 1
            self._sum += seconds

    def figures(self, name: str) -> dict[str, float]:
        """`name_bucket_5ms` and so on, each counting the lower ones too, then `name_count` and `name_sum`."""
        with self._lock:
            counts, total = list(self._counts), self._sum
        figures = {}
        seen = 0
        for bound, count in zip(self._bounds_ms, counts, strict=False):
            seen += count
            figures[f"{name}_bucket_{bound}ms"] = float(seen)
        return figures | {f"{name}_count": float(sum(counts)), f"{name}_sum": total}


class Summary:
    """Quantiles of the last `size` values of a quantity, with its count and sum since the start."""

    def __init__(self, size: int = 512) -> None:
        self._values: deque[float] = deque(maxlen=size)
        self._lock = threading.Lock()
        #: Its quantiles by label, until the next value. They are asked for far more often than one comes.
        self._quantiles: dict[str, float] | None = None
        self.count = 0
        self.sum = 0.0

    def add(self, value: float) -> None:
        with self._lock:
            self._values.append(value)
            self._quantiles = None
            self.count += 1
            self.sum += value

    def figures(self, name: str) -> dict[str, float]:
        """`name_count`, `name_sum` and, once there is a value, the last ones' `name_p50`, `_p95`, `_p99`."""
        with self._lock:
            if self._quantiles is None:
                values = sorted(self._values)
                self._quantiles = {label: quantile(values, q) for label, q in QUANTILES.items() if values}
            figures = {f"{name}_count": float(self.count), f"{name}_sum": self.sum}
            return figures | {f"{name}_{label}": value for label, value in self._quantiles.items()}


def quantile(ordered: list[float], q: float) -> float:
    """The q-quantile of sorted, non-empty values, interpolated between neighbours."""
    position = q * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
