"""How long clips are in each stage just now, from the histograms that the workers report."""

from __future__ import annotations

from protocol.wire.messages import Status

FIGURE = "clip_in_stage_seconds"


class TimesInStages:
    """The mean time of each worker's latest clips. A worker reports every 0.5 s."""

    def __init__(self) -> None:
        #: (stage, worker) → count and sum of the last report.
        self._seen: dict[tuple[str, str], tuple[float, float]] = {}
        #: (stage, worker) → mean seconds of the clips between the last two reports that had any.
        self._means: dict[tuple[str, str], float] = {}

    def take(self, status: Status) -> None:
        """Take a worker's newest figures."""
        key = status.stage, status.worker
        count = status.metrics.get(f"{FIGURE}_count", 0.0)
        total = status.metrics.get(f"{FIGURE}_sum", 0.0)
        before_count, before_total = self._seen.get(key, (0.0, 0.0))
        if count < before_count:  # a worker of the same name was started again
            before_count, before_total = 0.0, 0.0
        if count > before_count:
            self._means[key] = (total - before_total) / (count - before_count)
        self._seen[key] = count, total

    def forget(self, stage: str, worker: str) -> None:
        """Forget a worker that is gone."""
        self._seen.pop((stage, worker), None)
        self._means.pop((stage, worker), None)

    def milliseconds(self) -> dict[str, int]:
        """Stage → mean over its workers, in ms. A stage without a clip yet is left out."""
        by_stage: dict[str, list[float]] = {}
        for (stage, _), seconds in self._means.items():
            by_stage.setdefault(stage, []).append(seconds)
        return {stage: round(1000 * sum(each) / len(each)) for stage, each in sorted(by_stage.items())}
