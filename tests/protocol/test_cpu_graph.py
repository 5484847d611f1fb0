"""The choice between OpenVINO and torch, by an injected clock, and the values of `--cpu-engine`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from protocol.model.cpu_graph import TIMED_RUNS, CpuEngine, best_times, is_faster
from protocol.model.hardware.cpu_features import cpu_features
from protocol.process.settings import SettingsError, load_settings


def test_times_are_the_best_after_a_warm_up() -> None:
    now = 0.0
    costs = {"one": [0.1, 5.0, 2.0, 3.0], "other": [9.0, 4.0, 4.0, 4.0]}
    order: list[str] = []

    def task(name: str) -> None:
        nonlocal now
        order.append(name)
        now += costs[name].pop(0)

    assert best_times([lambda: task("one"), lambda: task("other")], clock=lambda: now) == [2.0, 4.0]
    assert order == ["one", "other"] * (1 + TIMED_RUNS)


def test_openvino_must_be_clearly_faster() -> None:
    assert is_faster(0.9, 1.0)
    assert not is_faster(0.99, 1.0)
    assert not is_faster(1.5, 1.0)


def test_the_flag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    engines = {
        name: CpuEngine.of(load_settings(["--cpu-engine", name, "--threads", "3"], env={}))
        for name in ("auto", "torch", "openvino")
    }
    folder = tmp_path / ".cache" / "echomimic-live" / "openvino"
    assert engines == {
        "auto": CpuEngine(False, folder, 3),
        "torch": None,
        "openvino": CpuEngine(True, folder, 3),
    }
    with pytest.raises(SettingsError, match="--cpu-engine tensorrt: choose one of auto, torch, openvino"):
        load_settings(["--cpu-engine", "tensorrt"], env={})


def test_features_are_those_of_every_core(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("flags\t: avx2 fma bf16\n\nflags\t: avx2 fma\n")
    assert cpu_features(cpuinfo) == {"avx2", "fma"}
    assert cpu_features(tmp_path / "none") == frozenset()


def test_openvino_reports_to_nobody() -> None:
    pytest.importorskip("openvino")
    code = (
        "from protocol.model import cpu_graph; cpu_graph._import_openvino();"
        "from openvino.tools.ovc import convert_impl, telemetry_utils;"
        "print(convert_impl.tm.__name__, telemetry_utils.tm.__name__)"
    )
    command = [sys.executable, "-c", code]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert made.stdout.split() == ["openvino.tools.ovc.telemetry_stub"] * 2
