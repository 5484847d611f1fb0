"""Which library computes: answers that cannot be read, and what is kept of each choice."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from protocol.model import graph_record, timed_apart
from protocol.model.cpu_graph import CpuEngine
from protocol.model.graph_record import GraphRecord
from protocol.model.timed_apart import LibraryChoice, choices_answer, choose_library, time_apart
from protocol.process.apart import ApartError
from protocol.process.settings import Settings

NAME = "network-" + "0" * 24


def record(folder: Path, *devices: str, name: str | None = NAME, forced: bool = False) -> GraphRecord[Any]:
    return GraphRecord(CpuEngine(forced, folder, 1), name, dict, "network", devices or ["cpu"])


def fail() -> LibraryChoice:
    raise ApartError("signal 9 (SIGKILL): killed, probably for lack of memory")


@pytest.fixture(autouse=True)
def torch_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("protocol.model.cpu_graph", "protocol.model.graph_record"):
        monkeypatch.setattr(f"{module}.torch_is_installed", lambda: True, raising=False)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"choices": None},
        {"choices": [1]},
        {"choices": []},
        {"choices": [{"openvino": True}]},
        {"choices": [{"openvino": "yes", "keep": True}]},
        {"choices": [{"openvino": True, "keep": True, "eight_bit": False, "more": 1}]},
        choices_answer([LibraryChoice(True, True)] * 2),
    ],
)
def test_an_answer_that_is_none(monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]) -> None:
    monkeypatch.setattr(timed_apart, "ask_apart", lambda *given, **named: answer)
    with pytest.raises(ApartError, match="the timing's answer"):
        time_apart("a:b", Settings(), {}, stage="test", count=1)


def test_an_answer_is_read_as_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    choices = [LibraryChoice(True, True, True), LibraryChoice(False, False)]
    monkeypatch.setattr(timed_apart, "ask_apart", lambda *given, **named: choices_answer(choices))
    assert time_apart("a:b", Settings(), {}, stage="test", count=2) == choices


def test_torch_is_kept_at_once(tmp_path: Path) -> None:
    made = record(tmp_path)
    assert made.chosen_without_torch
    choice = choose_library(made, "decoding", lambda: LibraryChoice(False, keep=True))
    assert not choice.openvino
    assert made.torch_serves() and not made.chosen_without_torch


def test_nothing_is_kept_where_openvino_failed(tmp_path: Path) -> None:
    made = record(tmp_path)
    assert not choose_library(made, "decoding", lambda: LibraryChoice(False, keep=False)).openvino
    assert not made.torch_serves()


def test_openvino_serves_unkept_where_nothing_was_timed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert choose_library(record(tmp_path), "decoding", fail) == LibraryChoice(True, keep=False)
    assert "decoding by OpenVINO, torch was not timed: signal 9 (SIGKILL): killed" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_flag_needs_no_timing(tmp_path: Path) -> None:
    made = record(tmp_path, forced=True)
    assert made.chosen_without_torch
    assert choose_library(made, "decoding", fail) == LibraryChoice(True, keep=True)


def test_torch_is_asked_in_the_process_where_a_gpu_may_compute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not record(tmp_path, "cuda:0").chosen_without_torch
    monkeypatch.setattr(graph_record, "only_a_cpu", lambda devices: False)
    assert not record(tmp_path, "auto").chosen_without_torch
    monkeypatch.undo()
    assert not record(tmp_path, name=None).chosen_without_torch
    assert not GraphRecord(None, NAME, dict, "network", ["cpu"]).chosen_without_torch
