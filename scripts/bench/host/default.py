"""The default run as a whole: its cost, its greatest speed, its memory and its latency."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scripts.bench.common.tools import EVERY_CLIP, NOISY, UsageMeter, cores, ms, speak, table, warm_up
from scripts.bench.host.pour import Poured, pour
from scripts.run.managed import ManagedRun, MetricSamples

#: Each stage's work on a clip, and the metric that times it.
WORK = {
    "audio_worker": ("Whisper features", "features_seconds"),
    "gpu_worker": ("denoise", "denoise_seconds"),
    "encoder_worker": ("VAE decode + JPEG", "clip_seconds"),
}
MOST_RTF, MOST_LATENCY, MOST_MEMORY = 0.8, 0.6, 3e9


@dataclass(frozen=True)
class StageTimes:
    """Seconds that a clip takes in one stage."""

    stage: str
    what: str
    median: float
    p99: float
    mean: float


@dataclass(frozen=True)
class DefaultRun:
    """Figures of one run with one or more sessions in real time."""

    #: The client's report, of several sessions as `together` makes one.
    report: dict[str, Any]
    work: list[StageTimes]
    cores: int
    #: Processor seconds by stage during the session, the gateway and the supervisor included.
    processor: dict[str, float]
    #: RSS by stage right after the speech, in bytes.
    resident: dict[str, int]
    #: PSS by stage right after the speech, in bytes.
    proportional: dict[str, int]
    #: Cores that the rest of the machine used meanwhile, the client included.
    others: float
    #: Seconds from the start until every worker was warm.
    ready_in: float
    poured: Poured | None = None

    @property
    def clip(self) -> float:
        """Seconds that a clip lasts."""
        return float(self.report["clip_frames"] / self.report["fps"])

    @property
    def cost(self) -> float:
        """Processor seconds of all stages per second, for all sessions."""
        return sum(self.processor.values()) / float(self.report["seconds"])

    @property
    def rtf(self) -> float:
        """`cost` divided by the cores: the share of the machine that the sessions take."""
        return self.cost / self.cores

    @property
    def memory(self) -> int:
        """RSS of everything, in bytes."""
        return sum(self.resident.values())


def measure_default(
    wav: Path, flags: Sequence[str], *, poured_seconds: float = 0.0, sessions: int = 1
) -> DefaultRun:
    """Start the run with `flags` and speak `wav` to it. Then pour in `poured_seconds` of speech, if any.

    Args:
        wav: the speech.
        flags: of the run.
        poured_seconds: speech for the greatest speed.
        sessions: clients that speak at the same time.
    """
    with ManagedRun(*EVERY_CLIP, *flags, timeout=600) as run:
        warm_up(run, wav, bound=60.0)
        pids = [run.process.pid]
        before = run.metrics()
        with UsageMeter(pids) as meter:
            report = together(speak(run, wav, sessions=sessions))
        time.sleep(1.0)  # stages tell their figures twice a second
        after = run.metrics()
    work = [_work(before, after, stage, *kind) for stage, kind in WORK.items()]
    poured = pour(wav, poured_seconds, flags) if poured_seconds else None
    return DefaultRun(
        report, work, cores(), meter.spent, meter.after.resident, meter.after.proportional, meter.other_cores,
        run.ready_in, poured,
    )  # fmt: skip


def together(reports: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One report of several sessions: all frames and problems, and the slowest session's rates and delays."""
    added = {name: sum(each[name] for each in reports) for name in ("frames_late", "frames_received")}
    slowest = {name: max(each[name] for each in reports) for name in ("latency_median", "latency_p95")}
    rates = {name: min(each[name] for each in reports) for name in ("fps", "received_fps")}
    problems = [problem for each in reports for problem in each["problems"]]
    return {**reports[0], **added, **slowest, **rates, "problems": problems}


def _work(before: MetricSamples, after: MetricSamples, stage: str, what: str, metric: str) -> StageTimes:
    name = f"echomimic_stage_{metric}"
    median, p99 = (_quantile(after, name, stage, quantile) for quantile in ("0.5", "0.99"))
    return StageTimes(stage, what, median, p99, _mean(before, after, name, stage))


def lines(run: DefaultRun) -> list[str]:
    """Two tables: by stage, and of the whole."""
    report = run.report
    rows = [("stage", "work on a clip", "median", "p99", "mean", "processor", "RSS", "PSS")]
    by_stage = {work.stage: work for work in run.work}
    speech = float(report["seconds"])
    order = ["gateway", *WORK]
    for stage in sorted(run.processor, key=lambda name: order.index(name) if name in order else len(order)):
        work = by_stage.get(stage)
        times = (ms(work.median), ms(work.p99), ms(work.mean)) if work else ("", "", "")
        rows.append(
            (
                stage, work.what if work else "", *times, f"{run.processor[stage] / speech:.3f} s/s",
                _mib(run.resident[stage]), _mib(run.proportional[stage]),
            )
        )  # fmt: skip
    total = (_mib(run.memory), _mib(sum(run.proportional.values())))
    rows.append(("all", "", "", "", "", f"{run.cost:.3f} s/s", *total))
    whole = [("the whole pipeline", "measured", "target"), *_whole(run)]
    out = [*table(rows, left=2), "", *table(whole)]
    out += [f"  FAILED {problem}" for problem in report["problems"]]
    if run.others > NOISY * run.cores:
        out.append(
            f"  NOT QUIET: other processes, the client among them, used {run.others:.2f} cores meanwhile"
        )
    return out


def _whole(run: DefaultRun) -> list[tuple[str, str, str]]:
    report = run.report
    rows = [
        (f"frame rate chosen, of {report['clip_frames']} frames a clip", f"{report['fps']} fps", "24 fps"),
        ("processor time a second, all stages", f"{run.cost:.2f} s", ""),
        (f"RTF: that over {run.cores} cores", f"{run.rtf:.2f}", f"≤ {MOST_RTF}"),
    ]
    if run.poured is not None:
        poured = run.poured
        rows += [
            ("wall time a second of speech, poured in", f"{poured.wall:.2f} s", f"≤ {MOST_RTF} s"),
            (f"… which is, of {poured.fps} fps", f"{poured.fps / poured.wall:.1f} fps", ""),
        ]
    late = f"{report['frames_late']} of {report['frames_received']}"
    return [
        *rows,
        ("last sample of a clip → its first frame, median", ms(report["latency_median"]), ms(MOST_LATENCY)),
        ("… 95th percentile", ms(report["latency_p95"]), ""),
        ("frames late", late, "0"),
        ("received", f"{report['received_fps']:.2f} fps", ""),
        ("memory of all stages, RSS", _mib(run.memory), _mib(MOST_MEMORY)),
        ("ready after", f"{run.ready_in:.1f} s", ""),
        ("others meanwhile, the client among them", f"{run.others:.2f} cores", ""),
    ]


def _mib(size: float) -> str:
    return f"{size / 2**20:.0f} MiB"


def _quantile(samples: MetricSamples, name: str, stage: str, quantile: str) -> float:
    values = [
        v
        for labels, v in samples.get(name, [])
        if labels["stage"] == stage and labels["quantile"] == quantile
    ]
    return max(values, default=float("nan"))


def _mean(before: MetricSamples, after: MetricSamples, name: str, stage: str) -> float:
    def total(samples: MetricSamples, what: str) -> float:
        return sum(v for labels, v in samples.get(f"{name}_{what}", []) if labels["stage"] == stage)

    count = total(after, "count") - total(before, "count")
    return (total(after, "sum") - total(before, "sum")) / count if count else float("nan")
