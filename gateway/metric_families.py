"""Prometheus metric families made of flat figures, as `protocol.process.metrics` names them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)

from protocol.wire.figures import QUANTILES

_BUCKET = re.compile(r"(.+)_bucket_(\d+)ms")
_QUANTILE = re.compile(rf"(.+)_({'|'.join(QUANTILES)})")


class MetricFamilies:
    """Collects figures of several sources, each with its own labels, into one family for each name."""

    def __init__(self, prefix: str, texts: Mapping[str, str], other_text: str = "") -> None:
        """Collect nothing yet.

        Args:
            prefix: the beginning of every name.
            texts: a figure's name → its help.
            other_text: the help of other names.
        """
        self._prefix = prefix
        self._texts = texts
        self._other_text = other_text
        self._families: dict[str, Metric] = {}

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())

    def add(self, figures: Mapping[str, float], labels: Mapping[str, str]) -> None:
        """Add one source's figures. Sources of one name need the same label names."""
        distributions = {
            name.removesuffix("_count")
            for name in figures
            if name.endswith("_count") and name.removesuffix("_count") + "_sum" in figures
        }
        buckets: dict[str, dict[int, float]] = defaultdict(dict)
        quantiles: dict[str, dict[str, float]] = defaultdict(dict)
        for name, value in figures.items():
            bucket, quantile = _BUCKET.fullmatch(name), _QUANTILE.fullmatch(name)
            if bucket and bucket[1] in distributions:
                buckets[bucket[1]][int(bucket[2])] = value
            elif quantile and quantile[1] in distributions:
                quantiles[quantile[1]][quantile[2]] = value
            elif name.removesuffix("_count").removesuffix("_sum") not in distributions:
                self._add_value(name, value, labels)
        for name in sorted(distributions):
            count, total = figures[f"{name}_count"], figures[f"{name}_sum"]
            if name in buckets:
                self._add_histogram(name, buckets[name], count, total, labels)
            else:
                self._add_summary(name, quantiles[name], count, total, labels)

    def _add_value(self, name: str, value: float, labels: Mapping[str, str]) -> None:
        if name.endswith("_total"):
            family = self._family(name, CounterMetricFamily, labels)
        else:
            family = self._family(name, GaugeMetricFamily, labels)
        if isinstance(family, (CounterMetricFamily, GaugeMetricFamily)):
            family.add_metric(list(labels.values()), value)

    def _add_histogram(
        self, name: str, buckets: dict[int, float], count: float, total: float, labels: Mapping[str, str]
    ) -> None:
        family = self._family(name, HistogramMetricFamily, labels)
        if isinstance(family, HistogramMetricFamily):
            below = [(f"{bound / 1000:g}", buckets[bound]) for bound in sorted(buckets)]
            family.add_metric(list(labels.values()), [*below, ("+Inf", count)], total)

    def _add_summary(
        self, name: str, quantiles: dict[str, float], count: float, total: float, labels: Mapping[str, str]
    ) -> None:
        family = self._family(name, SummaryMetricFamily, labels)
        if isinstance(family, SummaryMetricFamily):
            for label, value in quantiles.items():
                family.add_sample(family.name, {**labels, "quantile": f"{QUANTILES[label]:g}"}, value)
            family.add_metric(list(labels.values()), count_value=int(count), sum_value=total)

    def _family(
        self,
        name: str,
        kind: type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily | SummaryMetricFamily],
        labels: Mapping[str, str],
    ) -> Metric:
        # One name has one type in the text format. Workers of another version may use a name for another kind
        # of figure: the caller leaves such a figure out.
        if name not in self._families:
            text = self._texts.get(name, self._other_text)
            self._families[name] = kind(self._prefix + name, text, labels=list(labels))
        return self._families[name]
