"""The worker's side of a helper that compiles kernels: when there is one, and how long a worker waits."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol.model.kept_record import read_record, write_record
from protocol.model.kernels import ahead
from protocol.model.kernels.ahead import KernelsAhead, start_helper, wait_for_kernels
from protocol.model.kernels.lines import END, FAILED, FOLDER, PartDone, part_line, read_part
from protocol.process.settings import Settings, load_settings

HELPER = "tests.helpers.kernel_helper"
GPU = ["cuda:0"]


def started(monkeypatch: pytest.MonkeyPatch, folder: Path, *lines: str) -> KernelsAhead:
    monkeypatch.setenv("TEST_HELPER_LINES", "\n".join(lines))
    return KernelsAhead(HELPER, (folder, "kernels-x"))


def test_lines() -> None:
    assert read_part(part_line("exact, 2 frames", 38)) == PartDone("exact, 2 frames", 38)
    assert read_part(END) is None
    assert read_part("part exact") is None


def test_a_worker_waits_for_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    helper = started(monkeypatch, tmp_path, part_line("exact", 3), "stay")
    with caplog.at_level(logging.INFO):
        helper.wait("exact")
    assert "kernels compiled ahead: 3 more of exact" in caplog.text
    helper._until = time.monotonic() + 0.2
    begin = time.monotonic()
    helper.wait("fast")
    assert 0.1 < time.monotonic() - begin < 5.0
    helper._process.kill()
    assert read_record(tmp_path, "kernels-x") is None


def test_a_worker_waits_no_longer_than_its_helper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        started(monkeypatch, tmp_path, f"{FAILED}no compiler").wait("exact")
    assert "no compiler" in caplog.text
    assert read_record(tmp_path, "kernels-x") is None


def test_the_end_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started(monkeypatch, tmp_path, part_line("exact", 1), f"{FOLDER}/cache", END).wait("other")
    assert read_record(tmp_path, "kernels-x") == {"folder": "/cache"}


class Starts:
    """Counts helpers in place of starting them."""

    def __init__(self) -> None:
        self.records: list[tuple[Path, str]] = []
        self.waited: list[str] = []

    def __call__(self, module: str, record: tuple[Path, str]) -> Starts:
        self.records.append(record)
        return self

    def wait(self, part: str) -> None:
        self.waited.append(part)


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Starts]:
    """On a machine with a GPU and processors to spare."""
    pytest.importorskip("triton", reason="no helper compiles kernels without Triton")
    made = Starts()
    monkeypatch.setattr(ahead, "KernelsAhead", made)
    monkeypatch.setattr(ahead, "driver_is_there", lambda: True)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (*ahead.CHANGES_CODE, *ahead.FOLDERS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(ahead, "_helpers", [])
    yield made


def settings(*flags: str) -> Settings:
    return load_settings(list(flags), {})


def test_a_first_start_has_a_helper(starts: Starts, tmp_path: Path) -> None:
    wait_for_kernels("exact")
    start_helper("gpu_worker.fast.ahead", settings(), GPU)
    wait_for_kernels("exact")
    assert (len(starts.records), starts.waited) == (1, ["exact"])
    folder, name = starts.records[0]
    write_record(folder, name, {"folder": str(tmp_path / "gone")})
    start_helper("gpu_worker.fast.ahead", settings(), GPU)
    assert len(starts.records) == 2
    write_record(folder, name, {"folder": str(tmp_path)})
    start_helper("gpu_worker.fast.ahead", settings(), GPU)
    assert len(starts.records) == 2
    start_helper("gpu_worker.fast.ahead", settings("--tier", "fast"), GPU)
    start_helper("encoder_worker.fast.ahead", settings(), GPU)
    assert len({name for _, name in starts.records}) == 3


def test_where_no_helper_starts(starts: Starts, monkeypatch: pytest.MonkeyPatch) -> None:
    start_helper("gpu_worker.fast.ahead", settings(), ["cpu"])
    start_helper("gpu_worker.fast.ahead", settings("--config", "/no/such.yaml"), GPU)
    with monkeypatch.context() as here:
        here.setenv("TRITON_OVERRIDE_ARCH", "sm86")
        start_helper("gpu_worker.fast.ahead", settings(), GPU)
    with monkeypatch.context() as here:
        here.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
        start_helper("gpu_worker.fast.ahead", settings(), GPU)
    monkeypatch.setattr(ahead, "driver_is_there", lambda: False)
    start_helper("gpu_worker.fast.ahead", settings(), GPU)
    assert starts.records == []
