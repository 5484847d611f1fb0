"""The choice between OpenVINO and torch, by an injected clock, and the values of `--cpu-engine`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from protocol.model import cpu_graph
from protocol.model.cpu_convert import load_graph
from protocol.model.cpu_graph import SHORT_CALLS, TIMED_RUNS, CpuEngine, CpuGraph, best_times, is_faster
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
        for name in ("auto", "torch", "openvino", "openvino-int8")
    }
    folder = tmp_path / ".cache" / "echomimic-live" / "openvino"
    assert engines == {
        "auto": CpuEngine(False, folder, 3, eight_bit=True),
        "torch": None,
        "openvino": CpuEngine(True, folder, 3, eight_bit=False),
        "openvino-int8": CpuEngine(True, folder, 3, eight_bit=True),
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
        "from protocol.model import cpu_graph; cpu_graph.import_openvino();"
        "from openvino.tools.ovc import convert_impl, telemetry_utils;"
        "print(convert_impl.tm.__name__, telemetry_utils.tm.__name__)"
    )
    command = [sys.executable, "-c", code]
    made = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert made.stdout.split() == ["openvino.tools.ovc.telemetry_stub"] * 2


def keep_one(folder: Path, width: int) -> None:
    """Converts a small network for inputs of this width, and keeps it."""
    engine = CpuEngine(forced=True, folder=folder, threads=1)
    network = torch.nn.Linear(width, 1).eval()
    load_graph(network, [torch.zeros(1, width)], torch.float32, engine, name="small", sources=folder)


def test_only_kept_networks_make_room_for_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed here")
    monkeypatch.setattr(cpu_graph, "MOST_KEPT", 1)
    theirs = tmp_path / "holiday.blob"
    theirs.write_text("mine")
    os.utime(theirs, (0, 0))
    for width in (2, 3):
        keep_one(tmp_path, width)
    assert theirs.read_text() == "mine"
    assert len(list(tmp_path.glob("small-*.blob"))) == 1


def test_a_network_that_cannot_be_kept_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("openvino", reason="OpenVINO is not installed here")

    def full(source: str, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    keep_one(tmp_path, 2)
    assert "not kept for the next start" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_network_gives_back_the_memory_of_a_long_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("openvino")
    given_back: list[int] = []
    monkeypatch.setattr(CpuGraph, "release", lambda _: given_back.append(len(lengths)))
    engine = CpuEngine(False, tmp_path, 1)
    graph = load_graph(
        torch.nn.Linear(3, 2), (torch.randn(4, 3),), torch.float32, engine,
        name="linear", sources=Path(__file__).parent / "none", lengths={0: 12},
    )  # fmt: skip
    lengths: list[int] = []

    def call(*frames: int) -> None:
        for each in frames:
            lengths.append(each)
            assert graph(torch.randn(each, 3).numpy()).shape == (each, 2)

    call(4, 12, *(SHORT_CALLS - 1) * [4], 12)
    assert given_back == []  # a long one came between
    call(*SHORT_CALLS * [6])
    assert given_back == [len(lengths)]
    call(*3 * SHORT_CALLS * [6], *3 * SHORT_CALLS * [4])
    assert len(given_back) == 1  # these are more than half of the new longest
    call(*SHORT_CALLS * [2])
    assert len(given_back) == 2
