"""The figures of single clips, of real processes."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from scripts.bench.host.clip_times import UsageRecorder, UsageSample, summary
from scripts.run.managed import ROOT

pytestmark = pytest.mark.process


def test_each_clip_has_a_line() -> None:
    command = [
        sys.executable,
        "-m",
        "scripts.bench.host.clip_times",
        "--seconds",
        "3",
        "--passthrough",
        "--encoders",
        "1",
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    clips = [line for line in lines if re.match(r" +\d+ +\d+ ms( +\d+\+\d+){4} +\d+ +\d+ ms$", line)]
    assert len(clips) == 6, done.stdout
    assert lines[-1].startswith("6 clips: latency")


def test_the_looks_around_an_interval() -> None:
    recorder = UsageRecorder(1)
    recorder.samples = [UsageSample(float(second), {}, {}, second, 0) for second in range(5)]
    assert [at.read for at in recorder.between(1.5, 2.5)] == [1, 3]
    assert [at.read for at in recorder.between(-1.0, 9.0)] == [0, 4]


def test_the_summary_tells_whether_computing_explains_the_latency() -> None:
    told = summary([(0.2, 150.0), (0.3, 250.0), (0.4, 350.0)])
    assert told == (
        "3 clips: latency 300 ms median, 400 most; all stages computed 250 ms of it, 150 to 350; "
        "correlation of the two 1.00"
    )
