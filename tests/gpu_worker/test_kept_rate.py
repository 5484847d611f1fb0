"""A GPU worker that replaces another takes its rate; any other worker finds its own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpu_worker.rate.kept_rate import KeptRate
from gpu_worker.rate.trial import RateChoice
from protocol.process.settings import Settings, load_settings

CHOICE = RateChoice(12, 0.4, "this machine holds 12 frames per second", 12, fine=True)


def settings(folder: Path, *flags: str) -> Settings:
    return load_settings(["--run-dir", str(folder), *flags], env={})


def test_the_next_worker_of_the_run_takes_the_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert KeptRate(settings(tmp_path)).load() is None
    KeptRate(settings(tmp_path)).store(CHOICE)
    assert KeptRate(settings(tmp_path)).load() == CHOICE
    for flags in (
        ("--worker-index", "1", "--gpu-devices", "cpu,cpu"),
        ("--fps", "24"),
        ("--clip-frames", "6"),
        ("--width", "256", "--height", "256"),
    ):
        assert KeptRate(settings(tmp_path, *flags)).load() is None
    monkeypatch.setattr(os, "getppid", lambda: -1)
    assert KeptRate(settings(tmp_path)).load() is None


@pytest.mark.parametrize("text", ["{", "[]", '{"rate": "12"}'])
def test_a_damaged_record_is_no_rate(tmp_path: Path, text: str) -> None:
    KeptRate(settings(tmp_path)).store(CHOICE)
    (record,) = tmp_path.rglob("rate-0.json")
    record.write_text(text)
    assert KeptRate(settings(tmp_path)).load() is None


def test_without_a_run_folder_nothing_is_written(tmp_path: Path) -> None:
    KeptRate(settings(tmp_path / "none")).store(CHOICE)
    assert not (tmp_path / "none").exists()
