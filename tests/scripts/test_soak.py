"""The figures of a soak: a slope that no single step decides."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from scripts.torture.slope import slope
from scripts.torture.soak import Sample, cached_mb, growth, judged

HOUR = 3600.0
rng = np.random.default_rng(0)


def over(hours: float, curve: Callable[[float], float]) -> list[tuple[float, float]]:
    return [(at, curve(at / HOUR)) for at in np.arange(1000.0, hours * HOUR, 5.0)]


def test_steady_growth_is_found_in_noise() -> None:
    found = slope(over(2, lambda hours: 100 + 2 * hours + rng.normal(0, 0.5))).times(HOUR)
    assert 1.8 < found.middle < 2.2
    assert found.low < 2 < found.high and found.high - found.low < 0.5


def test_one_step_is_no_growth() -> None:
    for place in (0.5, 1.0, 1.5):
        found = slope(over(2, lambda hours, place=place: 100.0 + 6 * (hours > place)))  # type: ignore[misc]
        assert abs(found.middle) * HOUR < 0.1
    stairs = slope(over(2, lambda hours: 100.0 + math.floor(hours * 10))).times(HOUR)
    assert 8 < stairs.middle < 12, "steps again and again are one"


def test_too_little_is_known() -> None:
    assert math.isnan(slope(over(0.3, lambda _: 1.0)[:20]).middle)


def test_the_beginning_does_not_count() -> None:
    samples = [
        Sample(at, 50 + 100 * min(at, HOUR) / HOUR, 1, 1, 40 + at / HOUR)
        for at in np.arange(0.0, 8 * HOUR, 5.0)
    ]
    assert growth(samples).middle == 0 and judged(samples)[0].at == HOUR
    assert round(growth(samples, "own").middle, 3) == 1
    short = samples[:240]
    assert judged(short)[0].at == 600 and growth(short).middle > 90


def test_the_caches_of_each_process_are_added_up() -> None:
    encoder, gpu = {"stage": "encoder_worker", "worker": "0-12"}, {"stage": "gpu_worker", "worker": "0-9"}
    metrics = {
        "echomimic_stage_resident_bytes": [(encoder, 1e9)],
        "echomimic_stage_kept_clips_bytes": [(encoder, 3e6)],
        "echomimic_stage_rest_clips_bytes": [(gpu, 1e6)],
        "echomimic_stage_pose_cache_bytes": [(gpu, 5e5)],
        "echomimic_stage_kept_clips_hits_total": [(encoder, 9e6)],
    }
    assert cached_mb(metrics) == {12: 3.0, 9: 1.5}
