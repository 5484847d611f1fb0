"""A process's figures by name. `protocol.wire.figures` says how they travel.

Everything here is safe to use from any thread.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from protocol.wire.figures import CLIP_TIME_BOUNDS_MS, Histogram, Summary


class Metrics:
    """A worker's figures by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, float] = {}
        self._summaries: dict[str, Summary] = {}
        self._clip_time = Histogram(CLIP_TIME_BOUNDS_MS)

    def count(self, name: str, by: float = 1) -> None:
        """Add to a counter. Its name should end in `_total`."""
        with self._lock:
            self._values[name] = self._values.get(name, 0.0) + by

    def gauge(self, name: str, value: float) -> None:
        """Set a gauge to its present value."""
        with self._lock:
            self._values[name] = float(value)

    def observe(self, name: str, value: float) -> None:
        """Add to a summary. Its name should end in its unit, such as `_seconds`."""
        with self._lock:
            summary = self._summaries.setdefault(name, Summary())
        summary.add(value)

    def observe_clip(self, seconds: float) -> None:
        """Add to the histogram `clip_in_stage_seconds`: from a clip's arrival to its result handed on."""
        self._clip_time.add(seconds)

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Observe the seconds that the body takes."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.observe(name, time.perf_counter() - begin)

    def snapshot(self, *extra: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Every finite figure, and those of the `extra` sources."""
        with self._lock:
            figures = dict(self._values)
            summaries = list(self._summaries.items())
        for name, summary in summaries:
            figures |= summary.figures(name)
        figures |= self._clip_time.figures("clip_in_stage_seconds")
        for source in extra:
            figures |= source()
        return {name: value for name, value in figures.items() if math.isfinite(value)}
