"""The stages' own figures of a run, from the gateway's /metrics: time a clip, time computing, memory."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.run.managed import MetricSamples
from scripts.run.start import module_of

PREFIX = "echomimic_stage_"
#: Metrics of a stage's work on a clip.
WORK = {
    "audio_worker": ("features_seconds",),
    "gpu_worker": ("prepare_seconds", "denoise_seconds"),
    "encoder_worker": ("first_frame_seconds", "clip_seconds"),
}
#: Metrics of the work on a stage's device.
GPU_WORK = {"gpu_worker": "denoise_seconds", "encoder_worker": "clip_seconds"}
MEMORY = ("resident_bytes", "device_memory_bytes", "device_memory_peak_bytes", "device_memory_reserved_bytes")
COUNTERS = (
    "clips_dropped_total", "clips_failed_total", "prefetch_hits_total", "prefetch_misses_total",
    "prefetch_cold_total", "clips_at_rest_total", "clips_decoded_total", "kept_clips_hits_total",
)  # fmt: skip


@dataclass(frozen=True)
class WorkFigures:
    """One kind of work of one worker: its count, its seconds together, and quantiles of the latest."""

    count: float
    total: float
    median: float
    p95: float

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else float("nan")


@dataclass(frozen=True)
class RunFigures:
    """Figures at a moment, or (`since`) of the time between two. Workers are named `stage/worker`."""

    at: float
    work: dict[tuple[str, str], WorkFigures]
    memory: dict[tuple[str, str], float]
    counters: dict[tuple[str, str], float]
    seconds: float = float("nan")
    late: float = field(default=float("nan"))

    @classmethod
    def of(cls, samples: MetricSamples) -> RunFigures:
        work = {}
        for stage, metrics in WORK.items():
            for metric in metrics:
                for worker, count in _by_worker(samples, f"{metric}_count", stage).items():
                    total = _by_worker(samples, f"{metric}_sum", stage).get(worker, 0.0)
                    quantiles = [
                        _by_worker(samples, metric, stage, q).get(worker, 0.0) for q in ("0.5", "0.95")
                    ]
                    work[worker, metric] = WorkFigures(count, total, *quantiles)
        memory: dict[tuple[str, str], float] = {}
        counters: dict[tuple[str, str], float] = {}
        for stage in WORK:
            memory |= {(w, m): v for m in MEMORY for w, v in _by_worker(samples, m, stage).items()}
            counters |= {(w, m): v for m in COUNTERS for w, v in _by_worker(samples, m, stage).items()}
        late = sum(value for _, value in samples.get("echomimic_frames_late_total", []))
        return cls(time.monotonic(), work, memory, counters, late=late)

    def since(self, before: RunFigures) -> RunFigures:
        """Figures of the time after `before`. Quantiles and memory stay the latest."""
        work = {}
        for key, now in self.work.items():
            then = before.work.get(key, WorkFigures(0, 0, 0, 0))
            work[key] = WorkFigures(now.count - then.count, now.total - then.total, now.median, now.p95)
        counters = {key: value - before.counters.get(key, 0.0) for key, value in self.counters.items()}
        return RunFigures(self.at, work, self.memory, counters, self.at - before.at, self.late - before.late)

    def busy(self) -> dict[str, float]:
        """Share of the time that each worker computed on its device."""
        return {
            worker: work.total / self.seconds
            for (worker, metric), work in self.work.items()
            if metric == GPU_WORK.get(worker.split("/")[0])
        }

    def lines(self) -> list[str]:
        """For a terminal."""
        lines = [f"  {'worker':<26}{'work':<22}{'clips':>6}{'median':>10}{'p95':>10}{'mean':>10}"]
        for (worker, metric), work in self.work.items():
            times = "".join(f"{seconds * 1e3:>7.1f} ms" for seconds in (work.median, work.p95, work.mean))
            lines.append(f"  {worker:<26}{metric.removesuffix('_seconds'):<22}{work.count:>6.0f}{times}")
        busy = self.busy()
        shares = ", ".join(f"{worker} {share:.0%}" for worker, share in busy.items())
        lines.append(f"  computing of {self.seconds:.1f} s: {shares}; together {sum(busy.values()):.0%}")
        for worker in dict.fromkeys(worker for worker, _ in self.memory):
            sizes = [(m, self.memory[worker, m]) for m in MEMORY if (worker, m) in self.memory]
            text = ", ".join(f"{m.removesuffix('_bytes')} {size / 2**20:.0f} MiB" for m, size in sizes)
            lines.append(f"  {worker:<26}{text}")
        counts = ", ".join(
            f"{w} {m.removesuffix('_total')} {n:.0f}" for (w, m), n in self.counters.items() if n
        )
        return [*lines, f"  {counts or 'nothing dropped'}; late by the gateway's clock: {self.late:.0f}"]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "seconds": self.seconds,
            "late": self.late,
            "work": {f"{w} {m}": vars(work) | {"mean": work.mean} for (w, m), work in self.work.items()},
            "busy": self.busy(),
            "memory": {f"{w} {m}": value for (w, m), value in self.memory.items()},
            "counters": {f"{w} {m}": value for (w, m), value in self.counters.items()},
        }


def device_processes(pids: list[int]) -> list[dict[str, Any]]:
    """GPU memory of the run's processes as the driver counts it (empty without nvidia-smi)."""
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = []
    for line in done.stdout.splitlines():
        pid, _, used = (part.strip() for part in line.partition(","))
        if pid.isdigit() and int(pid) in pids:
            found.append({"stage": _module(int(pid)), "used_mib": used})
    return found


def _module(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
    return module_of(words) or "other"


def _by_worker(
    samples: MetricSamples, metric: str, stage: str, quantile: str | None = None
) -> dict[str, float]:
    return {
        f"{stage}/{labels['worker']}": value
        for labels, value in samples.get(PREFIX + metric, [])
        if labels.get("stage") == stage and labels.get("quantile") == quantile
    }
