"""The benchmark: its count of processor time and memory, its tables, and a short run of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.bench import __main__ as bench
from scripts.bench.common.processes import usage
from scripts.bench.common.tools import MemoryPeak, cores, only_cores, table
from scripts.bench.host import default as bench_default
from scripts.bench.host import machines as bench_machines
from scripts.bench.host.default import DefaultRun, StageTimes
from scripts.bench.host.machines import Machine, MachineRun
from scripts.bench.host.pour import Poured, pour
from scripts.talk.sound import synthetic_voice, write_wav
from scripts.talk.stream_check import Report

pytestmark = pytest.mark.process

REPORT = Report(
    version=2, fps=24, clip_frames=12, seconds=20.0, frames_expected=480, frames_received=480, order_by="pts",
    frames_late=0, received_fps=24.0, latency_median=0.48, latency_p95=0.55, echoed=1, sent=1,
)  # fmt: skip
RUN = DefaultRun(
    report=asdict(REPORT),
    work=[StageTimes("gpu_worker", "denoise", 0.37, 0.4, 0.38)],
    cores=2,
    processor={"gpu_worker": 20.0, "gateway": 2.0, "encoder_worker": 8.0},
    resident={"gpu_worker": 900 << 20, "gateway": 50 << 20, "encoder_worker": 250 << 20},
    proportional={"gpu_worker": 800 << 20, "gateway": 30 << 20, "encoder_worker": 170 << 20},
    others=0.1,
    ready_in=20.0,
    poured=Poured(24, 40, 0.75, 1.3),
)


def test_processor_time_and_memory_of_a_family_are_counted() -> None:
    code = "import time; x = bytearray(64 << 20); sum(range(10**7)); print('on', flush=True); time.sleep(60)"
    starter = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    parent = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None and parent.stdout.readline() == "on\n"
        used = usage([parent.pid])
    finally:
        for pid in [*_children(parent.pid), parent.pid]:
            os.kill(pid, signal.SIGKILL)
        parent.communicate()
    assert list(used.processor) == ["other"]
    assert used.processor["other"] > 0.1
    assert used.resident["other"] >= used.proportional["other"] > 64 << 20
    assert usage([parent.pid]).processor == {}  # gone


@pytest.mark.timing
def test_a_workers_ended_helper_counts_in_time_and_in_the_most_memory() -> None:
    helper = "x = bytearray(64 << 20); sum(range(2 * 10**7)); import time; time.sleep(1.5)"
    worker = f"""
import subprocess, sys, time
subprocess.run([sys.executable, "-c", {helper!r}])
print("on", flush=True)
time.sleep(60)
"""
    starter = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    run: Any = SimpleNamespace()
    with MemoryPeak(run) as peak:
        run.process = subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True)
        try:
            assert run.process.stdout.readline() == "on\n"
            most, used = peak.stop(), usage([run.process.pid])
        finally:
            for pid in [*_children(run.process.pid), run.process.pid]:
                os.kill(pid, signal.SIGKILL)
            run.process.communicate()
    assert used.processor["other"] > 0.2  # of the helper's sum
    assert most > used.resident["other"] + (48 << 20)


def _children(pid: int) -> list[int]:
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(word) for word in file.read().split()]


def test_cores_are_taken_away_from_what_is_started_and_given_back() -> None:
    before = cores()
    with only_cores(1):
        told = subprocess.run(
            [sys.executable, "-c", "import os; print(len(os.sched_getaffinity(0)))"],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
    assert (told.stdout, cores()) == ("1\n", before)


def test_the_table_of_the_whole_pipeline() -> None:
    text = "\n".join(bench_default.lines(RUN))
    assert RUN.rtf == pytest.approx(30.0 / 20.0 / 2)
    for part in (
        "RTF: that over 2 cores",
        "0.75",
        "poured in",
        "32.0 fps",
        "480.0 ms",
        "0 of 480",
        "1200 MiB",
    ):
        assert part in text, part
    assert "NOT QUIET" not in text and "FAILED" not in text
    assert "NOT QUIET" in "\n".join(bench_default.lines(replace(RUN, others=0.5)))


def test_a_machine_is_in_step_or_not() -> None:
    shown = MachineRun(Machine("1 core", 1, ()), 12, "holds 12", "holds 12", REPORT, 0)
    assert shown.in_step
    assert not replace(shown, report=replace(REPORT, behind_most=0.05)).in_step
    assert not replace(shown, report=replace(REPORT, problems=["frame 3 came twice"])).in_step
    lines = bench_machines.lines([shown, replace(shown, report=None, failure="busy: 1 of 1")])
    assert "yes" in lines[1] and lines[2].endswith("FAILED busy: 1 of 1")
    assert "log: holds 12" in "\n".join(lines)


def test_columns_stand_under_each_other() -> None:
    assert table([("a", "b"), ("long", "1")]) == ["  a     b", "  long  1"]


def test_sound_is_poured_through_real_stages(tmp_path: Path) -> None:
    wav = tmp_path / "voice.wav"
    write_wav(wav, synthetic_voice(2.0))
    poured = pour(wav, 5.0, ["--passthrough"])
    assert (poured.fps, poured.clips) == (24, 10)
    assert 0 < poured.wall < 1.0 and poured.processor > 0


def test_figures_become_json_that_every_reader_takes() -> None:
    assert bench.without_nan({"a": [float("nan"), 1.0, (2, "x")]}) == {"a": [None, 1.0, [2, "x"]]}


def test_a_part_that_does_not_exist_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        bench.main(["--only", "hops,speed"])
    assert "no part speed" in capsys.readouterr().err


@pytest.mark.timing
def test_a_quick_run_prints_the_tables(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    assert bench.main(["--quick", "--only", "default", "--json", str(file), "--passthrough"]) == 0
    figures = json.loads(file.read_text())
    run = figures["default"]
    assert set(figures) == {"machine", "date", "default"}
    assert run["rtf"] == pytest.approx(sum(run["processor"].values()) / run["report"]["seconds"] / cores())
    assert run["report"]["fps"] == 24 and run["poured"]["clips"] > 0 and run["targets"]["rtf"] == 0.8
    out = capsys.readouterr().out
    for part in ("gateway", "supervisor", "Whisper features", "RTF", "memory of all stages", "24 fps"):
        assert part in out, part
