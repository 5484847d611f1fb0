"""The time of clips in each stage, from the workers' reports."""

from __future__ import annotations

from gateway.stage_times import TimesInStages
from protocol.wire.messages import Status


def report(stage: str, worker: str, count: int, total: float) -> Status:
    figures = {"clip_in_stage_seconds_count": float(count), "clip_in_stage_seconds_sum": total}
    return Status(stage, worker, True, {}, figures)


def test_it_is_the_mean_of_the_latest_clips_over_the_workers() -> None:
    times = TimesInStages()
    times.take(Status("audio_worker", "a", True, {}, {}))
    assert times.milliseconds() == {}
    times.take(report("gpu_worker", "a", 10, 5.0))
    times.take(report("gpu_worker", "a", 12, 5.2))
    times.take(report("gpu_worker", "a", 12, 5.2))  # nothing new: the last figure stays
    times.take(report("encoder_worker", "a", 2, 0.1))
    times.take(report("encoder_worker", "b", 1, 0.15))
    assert times.milliseconds() == {"encoder_worker": 100, "gpu_worker": 100}
    times.forget("encoder_worker", "b")
    times.take(report("gpu_worker", "a", 1, 0.3))  # it was started again
    assert times.milliseconds() == {"encoder_worker": 50, "gpu_worker": 300}
