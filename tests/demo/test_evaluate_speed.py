"""Trial "speed" reads the figures of a benchmark that runs as a process of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from demo.factory.evaluate import trial_speed
from scripts.run.managed import RunError

REPORT: dict[str, Any] = {
    "fps": 12, "latency_median": None, "latency_p95": None, "frames_late": 1, "frames_received": 40,
    "behind_most": 0.01, "problems": [],
}  # fmt: skip


@pytest.mark.process
@pytest.mark.slow
def test_the_benchmark_is_run_and_read() -> None:
    section = trial_speed.run(None, ["--passthrough", "--quick"], 2.0)
    values = {row.name: row.value for row in section.rows}
    assert values["Frame rate that the warm-up chose"] == "24 fps"
    assert section.numbers["rtf"] > 0 and section.numbers["poured_wall_per_second"] > 0
    assert set(section.numbers["clip_seconds"]) == {"audio_worker", "gpu_worker", "encoder_worker"}


def test_a_benchmark_that_fails_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", "false")
    with pytest.raises(RunError, match="--only default"):
        trial_speed.benchmark("default", None, [])


def test_a_smaller_machine_must_say_that_its_rate_fell(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(name: str, page: str, report: dict[str, Any] | None = REPORT) -> dict[str, Any]:
        return {
            "machine": {"name": name}, "fps": 12, "log": "holds 12", "page": page, "report": report,
            "in_step": True, "in_step_bound": 0.04, "failure": "busy",
        }  # fmt: skip

    machines = [shown("here", ""), shown("told", "holds 12"), shown("silent", ""), shown("broken", "", None)]
    monkeypatch.setattr(trial_speed, "benchmark", lambda part, wav, flags: machines)
    section = trial_speed.run_machines(None, [])
    met = {row.name: row.met for row in section.rows}
    assert not any(name.startswith("here") for name in met), "trial `run` has this machine"
    assert met["told: rate chosen, told"] and not met["silent: rate chosen, told"]
    assert met["broken: rate chosen"] is False
    assert [row.value for row in section.rows if row.name.startswith("told: frames late")] == [
        "1 of 40, 10 ms"
    ]
