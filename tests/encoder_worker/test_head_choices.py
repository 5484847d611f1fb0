"""A first start where torch is installed: the bundled decoders are timed apart, and torch stays out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from encoder_worker import head_choices
from encoder_worker.decode import ClipDecoder
from encoder_worker.graph_decoder import GraphDecoder
from encoder_worker.head_choices import HeadChoices
from encoder_worker.worker import EncoderWorker
from protocol.model.timed_apart import LibraryChoice
from protocol.process.apart import ApartError
from protocol.process.settings import ROOT, Settings, load_settings
from tests.helpers.broken_torch import KILLED, UNLOADABLE, break_torch
from tests.helpers.search_path import search_first

pytest.importorskip("openvino", reason="OpenVINO is not installed here")

#: A worker's start. It prints what it imported, its plan and the records that it kept.
START = """
import logging
import sys
from pathlib import Path
from types import SimpleNamespace
from encoder_worker.worker import EncoderWorker
from protocol.process.settings import load_settings
logging.basicConfig(level=logging.INFO)
stage = SimpleNamespace(warm=True, jobs=SimpleNamespace(ack=None))
worker = EncoderWorker(load_settings(sys.argv[1:], env={}), stage)
worker.warm_up()
print("torch" in sys.modules)
print(worker.info()["plan"])
print(*sorted(path.read_text() for path in Path.home().rglob("decoder-*.json")), sep="\\n")
"""
FLAGS = ("--encoder-devices", "cpu", "--threads", "1")


def start(home: Path, *flags: str, path: Path | None = None) -> tuple[list[str], str]:
    """The lines that a worker's start prints, and its log.

    Args:
        home: holds what is kept for the next start.
        flags: of the worker.
        path: a folder that comes before the installed packages.
    """
    home.mkdir(exist_ok=True)
    environment = {**os.environ, "HOME": str(home), **search_first(*([path] if path else []))}
    made = subprocess.run(
        [sys.executable, "-c", START, *FLAGS, *flags],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=110,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    return made.stdout.splitlines(), made.stderr


@pytest.mark.process
def test_a_first_start_keeps_its_choices_and_imports_no_torch(tmp_path: Path) -> None:
    (torch, plan, *records), log = start(tmp_path / "home")
    assert log.count("a frame takes torch ") == 2, log
    assert len(records) == 2  # one for each head
    if all(json.loads(record)["serves"] == "openvino" for record in records):
        assert torch == "False"
        assert plan.endswith("by OpenVINO")
    again, later = start(tmp_path / "home")
    assert again == [torch, plan, *records]
    assert "a frame takes" not in later


@pytest.mark.process
@pytest.mark.parametrize(
    ("program", "why"),
    [(KILLED, r"signal 9 (SIGKILL): killed"), (UNLOADABLE, "OSError: libtorch_cpu.so: cannot allocate")],
)
def test_openvino_decodes_where_torch_cannot_be_timed(tmp_path: Path, program: str, why: str) -> None:
    folder = break_torch(tmp_path / "broken", program)
    (torch, plan, *records), log = start(tmp_path / "home", "--width", "256", "--height", "256", path=folder)
    assert f"decoding by OpenVINO, torch was not timed: {why}" in log
    assert "the next start tries again" in log
    assert (torch, plan.endswith("by OpenVINO")) == ("False", True)
    assert "".join(records) == ""  # nothing was measured


def worker_with(choices: Sequence[LibraryChoice], monkeypatch: pytest.MonkeyPatch, *flags: str) -> Any:
    """A warm worker whose heads' choices are these."""
    monkeypatch.setattr(head_choices, "time_apart", lambda *given, **named: list(choices))
    stage: Any = SimpleNamespace(warm=True, jobs=SimpleNamespace(ack=None))
    worker = EncoderWorker(load_settings([*FLAGS, *flags], env={}), stage)
    worker.warm_up()
    return worker


@pytest.mark.parametrize("eight_bit", [False, True])
def test_the_choice_of_eight_bits_is_followed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eight_bit: bool
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    size = ("--width", "256", "--height", "256")
    made = worker_with([LibraryChoice(True, True, eight_bit)], monkeypatch, *size)._decoder
    assert isinstance(made, GraphDecoder)
    assert made.is_eight_bit is eight_bit
    (record,) = tmp_path.rglob("decoder-*.json")
    assert json.loads(record.read_text())["facts"]["eight_bit"] is eight_bit


def test_torch_is_loaded_where_it_was_the_faster_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    size = ("--width", "256", "--height", "256")
    made = worker_with([LibraryChoice(False, True)], monkeypatch, *size)._decoder
    assert isinstance(made, ClipDecoder)
    assert made.openvino is None
    (record,) = tmp_path.rglob("decoder-*.json")
    assert json.loads(record.read_text()) == {"serves": "torch"}
    again = worker_with([], monkeypatch, *size)._decoder  # which would fail, had it asked
    assert isinstance(again, ClipDecoder)


def test_the_heads_are_timed_together_and_a_failure_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[bool]] = []

    def answer(function: str, settings: Settings, facts: dict[str, Any], **named: Any) -> list[LibraryChoice]:
        asked.append(facts["heads"])
        if facts["heads"] == [False]:
            raise ApartError("no memory")
        return [LibraryChoice(True, True, fine) for fine in facts["heads"]]

    monkeypatch.setattr(head_choices, "time_apart", answer)
    choices = HeadChoices(Settings(), "encoder_worker", (True, False))
    assert [choices.get(fine).eight_bit for fine in (True, False, True)] == [True, False, True]
    assert asked == [[True, False]]
    failing = HeadChoices(Settings(), "encoder_worker", (False,))
    for fine in (False, True):
        with pytest.raises(ApartError, match="no memory"):
            failing.get(fine)
    assert asked[1:] == [[False]]
