"""How fast something grows: a slope that no single step decides, and its spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

#: Seconds whose median is one value, as a rule. Neighbouring samples of a process's memory are much alike.
BIN = 60.0
#: Standard deviations to each side of a 95 % interval.
SIGMAS = 1.96
#: Values below which no slope can be told.
LEAST_VALUES = 4


@dataclass(frozen=True)
class Slope:
    """Growth for each second, with a 95 % interval. All three are NaN where too little is known."""

    middle: float
    low: float
    high: float

    def times(self, factor: float) -> Slope:
        """The same in another unit."""
        return Slope(self.middle * factor, self.low * factor, self.high * factor)


def slope(samples: Sequence[tuple[float, float]], width: float = BIN) -> Slope:
    """The slope of (seconds, value) by Theil and Sen: the median slope of all pairs of bins.

    `width` is that of a bin, whose median is one value.

    A step in an otherwise level curve leaves it near 0 wherever it lies, where a line of least squares would
    make a growth of it. The interval is Sen's, by the rank of the pairs (P. K. Sen 1968, "Estimates of the
    regression coefficient based on Kendall's tau").
    """
    values = _medians(samples, width)
    if len(values) < LEAST_VALUES:
        return Slope(math.nan, math.nan, math.nan)
    pairs = sorted((b - a) / (t - s) for i, (s, a) in enumerate(values) for t, b in values[i + 1 :])
    n, count = len(values), len(pairs)
    spread = SIGMAS * math.sqrt(n * (n - 1) * (2 * n + 5) / 18)
    low, high = math.floor((count - spread) / 2), math.ceil((count + spread) / 2)
    return Slope(median(pairs), pairs[max(low, 0)], pairs[min(high, count - 1)])


def _medians(samples: Sequence[tuple[float, float]], width: float) -> list[tuple[float, float]]:
    """One (seconds, value) for each bin with samples: their medians."""
    bins: dict[int, list[tuple[float, float]]] = {}
    for at, value in samples:
        bins.setdefault(math.floor((at - samples[0][0]) / width), []).append((at, value))
    return [(median(at for at, _ in each), median(value for _, value in each)) for each in bins.values()]
