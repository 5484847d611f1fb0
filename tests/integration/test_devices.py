"""Several devices: a GPU worker for each, sessions spread over them, encoders on any."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from scripts.run.managed import ROOT, ManagedRun
from scripts.talk.live import Plan, speak
from scripts.talk.stream_check import Report
from tests.helpers.official_layout import write_official_layout
from tests.integration.conftest import keeper

pytestmark = [pytest.mark.process, pytest.mark.slow]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small enough for two denoisers on a CPU."""
    folder = tmp_path_factory.mktemp("official")
    return write_official_layout(folder, width=64, height=64, steps=2, whisper_window="short")


def clips_of(run: ManagedRun) -> dict[str, int]:
    """Clips denoised by each GPU worker for real sessions (the rate trial's are not counted)."""
    samples = run.metrics().get("echomimic_stage_clips_total", [])
    made: dict[str, int] = defaultdict(int)
    for labels, value in samples:
        if labels["stage"] == "gpu_worker":
            made[labels["worker"].split("-")[0]] += int(value)
    return dict(made)


@pytest.mark.timeout(240)
def test_two_gpu_workers_share_the_sessions(model: Path, speech: np.ndarray) -> None:
    """Both sessions are whole, and each has a worker of its own."""
    flags = [
        "--config",
        str(model),
        "--gpu-devices",
        "cpu,cpu",
        "--encoder-devices",
        "cpu",
        "--encoders",
        "2",
    ]
    sounds = (speech[:24000], speech[8000:32000])
    pictures: list[list[bytes]] = [[], []]

    async def both(url: str) -> list[Report]:
        plans = [
            Plan(
                sound,
                version=2,
                fps=8,
                patience=60,
                avatar=avatar,
                on_frame=keeper(into),
            )
            for sound, avatar, into in zip(sounds, ("amara", "kenji"), pictures, strict=True)
        ]
        return list(await asyncio.gather(*(speak(url, plan, 8, 4) for plan in plans)))

    with ManagedRun(*flags, "--fps", "8", "--max-sessions", "4", timeout=200) as run:
        log = run.log()
        reports = asyncio.run(both(run.url))
        asyncio.run(asyncio.sleep(1.0))  # stages tell their figures twice a second
        clips = clips_of(run)
    for report in reports:
        print(*report.lines(), sep="\n")
        assert report.problems == []
    assert clips == {"0": 3, "1": 3}
    for number in ("0", "1"):
        assert f"gpu_worker.{number}" in log
    assert pictures[0] != pictures[1]


@pytest.mark.timeout(240)
def test_the_live_benchmark_runs_small(tmp_path: Path) -> None:
    """The same script that measures a GPU, with two workers and the small random model."""
    file = tmp_path / "figures.json"
    command = [
        sys.executable,
        "-m",
        "scripts.bench.gpu.live",
        "--model",
        "tiny",
        "--seconds",
        "2",
        "--fps",
        "8",
    ]
    command += [
        "--sessions",
        "2",
        "--gpu-devices",
        "cpu,cpu",
        "--encoder-devices",
        "cpu",
        "--json",
        str(file),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=220, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(file.read_text())
    assert [report["frames_received"] for report in figures["sessions"]] == [16, 16]
    assert sum(worker.startswith("gpu_worker/") for worker in figures["stages"]["busy"]) == 2
    for words in ("ready in", "late", "denoise", "resident"):
        assert words in done.stdout
