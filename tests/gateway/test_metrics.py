"""/metrics of a real gateway, read by Prometheus's own parser."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from gateway.metric_families import MetricFamilies
from protocol.process.metrics import Metrics
from protocol.process.settings import ROOT
from protocol.wire.figures import CLIP_TIME_BOUNDS_MS, Histogram, Summary
from tests.gateway.clients import client_v2, noise
from tests.gateway.conftest import Running

HISTOGRAMS = {
    "echomimic_first_frame_seconds",
    "echomimic_session_length_seconds",
    "echomimic_stage_clip_in_stage_seconds",
    "echomimic_stage_pcm_queued_seconds",
    "echomimic_stage_clips_queued_seconds",
    "echomimic_stage_latents_queued_seconds",
}


def families(gateway: Running) -> list[Metric]:
    return list(text_string_to_metric_families(gateway.get("/metrics")[1]))


def by_name(found: list[Metric], kind: str) -> dict[str, Metric]:
    return {family.name: family for family in found if family.type == kind}


def value(family: Metric, sample: str, **labels: str) -> float:
    """The sum of the samples that have these labels."""
    return sum(
        each.value for each in family.samples if each.name == sample and labels.items() <= each.labels.items()
    )


def clips_reported(gateway: Running) -> float:
    """Clips that every stage says it has finished."""
    family = by_name(families(gateway), "counter").get("echomimic_stage_clips")
    if family is None:
        return 0.0
    stages = ("audio_worker", "gpu_worker", "encoder_worker")
    return min(value(family, "echomimic_stage_clips_total", stage=stage) for stage in stages)


@pytest.fixture
async def after_a_session(gateway: Running) -> list[Metric]:
    """The families while one session runs and another one is over."""
    async with client_v2(gateway) as first:
        await first.speak(noise(0.5), pace=0)
        await first.until(lambda c: len(c.frames) == 12)
    async with client_v2(gateway) as second:
        await second.speak(noise(1.0), pace=0)
        await second.until(lambda c: len(c.frames) == 24)
        # The first session's end and the workers' next Status may come a moment later.
        await second.until(lambda c: gateway.metric("echomimic_session_length_seconds_count") >= 1)
        await second.until(lambda c: clips_reported(gateway) >= 3)
        return families(gateway)


@pytest.mark.process
async def test_every_family_has_the_type_that_its_name_tells(after_a_session: list[Metric]) -> None:
    names = [(family.name, family.type) for family in after_a_session]
    assert len(set(names)) == len(names)
    for family in after_a_session:
        assert family.type in {"counter", "gauge", "histogram", "summary"}, family
        samples = {sample.name for sample in family.samples}
        if family.type == "counter":
            assert samples <= {f"{family.name}_total"}
        elif family.type == "gauge":
            assert samples == {family.name} and not family.name.endswith(("_total", "_count", "_sum"))
    assert by_name(after_a_session, "histogram").keys() == HISTOGRAMS
    counters = by_name(after_a_session, "counter")
    assert value(counters["echomimic_stage_clips"], "echomimic_stage_clips_total", stage="gpu_worker") >= 3
    gauges = by_name(after_a_session, "gauge")
    assert value(gauges["echomimic_sessions"], "echomimic_sessions") == 1
    assert value(gauges["echomimic_stage_warm"], "echomimic_stage_warm", worker="fake") == 3
    name = "echomimic_stage_clip_seconds"
    summary = by_name(after_a_session, "summary")[name]
    assert value(summary, f"{name}_count", stage="encoder_worker") >= 3
    assert 0 < value(summary, name, stage="encoder_worker", quantile="0.5") < 5


@pytest.mark.process
async def test_histograms_are_cumulative_and_end_at_their_count(after_a_session: list[Metric]) -> None:
    for name, family in by_name(after_a_session, "histogram").items():
        for stage in {sample.labels.get("stage", "") for sample in family.samples}:
            here = [sample for sample in family.samples if sample.labels.get("stage", "") == stage]
            buckets = [(s.labels["le"], s.value) for s in here if s.name == f"{name}_bucket"]
            bounds = [float(bound) for bound, _ in buckets]
            assert bounds == sorted(set(bounds)) and bounds[-1] == float("inf")
            assert all(before <= after for (_, before), (_, after) in pairwise(buckets))
            assert buckets[-1][1] == next(s.value for s in here if s.name == f"{name}_count")


@pytest.mark.process
async def test_histograms_count_clips_sessions_and_waiting(after_a_session: list[Metric]) -> None:
    found = by_name(after_a_session, "histogram")

    def count(name: str, **labels: str) -> float:
        return value(found[name], f"{name}_count", **labels)

    assert count("echomimic_first_frame_seconds") >= 3
    assert 0 < value(found["echomimic_first_frame_seconds"], "echomimic_first_frame_seconds_sum") < 60
    assert count("echomimic_session_length_seconds") >= 1
    for stage in ("audio_worker", "gpu_worker", "encoder_worker"):
        assert count("echomimic_stage_clip_in_stage_seconds", stage=stage) >= 3
    for hop, stage in (("pcm", "gateway"), ("clips", "audio_worker"), ("latents", "gpu_worker")):
        assert count(f"echomimic_stage_{hop}_queued_seconds", stage=stage) >= 3


def test_the_guide_names_every_histogram() -> None:
    guide = (ROOT / "docs/guide/serving.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(echomimic_\w+)`", guide, re.MULTILINE)) == HISTOGRAMS


def test_figures_that_workers_send_become_their_families() -> None:
    metrics = Metrics()
    metrics.count("clips_total", 2)
    metrics.gauge("held_jobs", 1)
    metrics.observe("decode_seconds", 0.25)
    metrics.observe_clip(0.3)
    made = MetricFamilies("x_", {"held_jobs": "Held."})
    for worker in ("a", "b"):
        made.add(metrics.snapshot(), {"worker": worker})
    kinds = {family.name: family.type for family in made}
    assert kinds == {
        "x_clips": "counter", "x_held_jobs": "gauge", "x_decode_seconds": "summary",
        "x_clip_in_stage_seconds": "histogram",
    }  # fmt: skip
    histogram = by_name(list(made), "histogram")["x_clip_in_stage_seconds"]
    assert value(histogram, "x_clip_in_stage_seconds_bucket", worker="b", le="0.2") == 0
    assert value(histogram, "x_clip_in_stage_seconds_bucket", worker="b", le="0.3") == 1
    assert by_name(list(made), "gauge")["x_held_jobs"].documentation == "Held."


def test_a_name_of_two_kinds_keeps_the_first_kind() -> None:
    made = MetricFamilies("x_", {})
    histogram, summary = Histogram(CLIP_TIME_BOUNDS_MS), Summary()
    made.add(histogram.figures("t_seconds"), {"worker": "a"})
    made.add(summary.figures("t_seconds"), {"worker": "b"})
    made.add({"t_seconds": 1.0}, {"worker": "c"})
    (family,) = made
    assert family.type == "histogram" and {sample.labels["worker"] for sample in family.samples} == {"a"}
