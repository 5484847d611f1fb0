"""A function in a process of its own: its answer, each way to fail, and its end with whoever asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from protocol.process import apart
from protocol.process.apart import ApartError, ask_apart
from protocol.process.settings import ROOT, load_settings

pytestmark = pytest.mark.process

FUNCTIONS = "tests.helpers.apart_functions:"
#: Asks for a function that sleeps, and waits for it.
ASKER = f"""
import sys
from protocol.process.apart import ask_apart
from protocol.process.settings import load_settings
ask_apart("{FUNCTIONS}sleep", load_settings([], env={{}}), {{"note": sys.argv[1]}}, stage="test")
"""


def ask(name: str, *flags: str, **facts: Any) -> Any:
    return ask_apart(FUNCTIONS + name, load_settings(flags, env={}), facts, stage="test")


def wait_for(note: Path, process: subprocess.Popen[bytes] | None = None) -> psutil.Process:
    """The process that has written its id into the file."""
    while not note.exists():
        assert process is None or process.poll() is None
        time.sleep(0.02)
    return psutil.Process(int(note.read_text()))


def test_the_answer_comes_from_another_process(capfd: pytest.CaptureFixture[str]) -> None:
    made = ask("describe", "--threads", "3", "--dtype", "float32", word="Grüße")
    assert (made["threads"], made["dtype"], made["word"]) == (3, "float32", "Grüße")
    assert made["pid"] != os.getpid()
    assert not psutil.pid_exists(made["pid"])
    assert capfd.readouterr() == ("", "a library says hello\n")


@pytest.mark.parametrize("module", ["protocol", "json", "numpy"])
def test_nothing_is_imported_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    (tmp_path / f"{module}.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    assert ask("describe", word="here")["word"] == "here"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("fail", "OSError: libgomp.so.1: cannot open shared object file$"),
        ("be_killed", r"signal 9 \(SIGKILL\): killed"),
        ("answer_nothing", "no mapping"),
        ("absent", "AttributeError: .*absent"),
    ],
)
def test_a_failure_says_its_cause(name: str, why: str) -> None:
    with pytest.raises(ApartError, match=why):
        ask(name)


def test_a_process_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ApartError, match=r"no process can be started: .*No such file"):
        ask("fail")


def test_a_request_that_is_refused_says_its_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "flags_of", lambda settings: ["--threads", "many"])
    with pytest.raises(ApartError, match=r"SettingsError: .*--threads"):
        ask("fail")


def test_a_process_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "note"
    settings, facts = load_settings([], env={}), {"note": str(note)}
    with pytest.raises(ApartError, match="longer than 5 s"):
        ask_apart(FUNCTIONS + "sleep", settings, facts, stage="test", most_seconds=5.0)
    assert not note.exists() or not psutil.pid_exists(int(note.read_text()))


def test_it_ends_with_its_asker_even_where_that_is_killed(tmp_path: Path) -> None:
    note = tmp_path / "note"
    asker = subprocess.Popen([sys.executable, "-c", ASKER, str(note)], cwd=ROOT)
    try:
        other = wait_for(note, asker)
        assert other.pid != asker.pid
    finally:
        asker.kill()
        asker.wait()
    assert psutil.wait_procs([other], timeout=60)[1] == []


@pytest.mark.skipif(sys.platform != "linux", reason="Linux' rule for a lack of memory")
def test_a_lack_of_memory_takes_it_first(tmp_path: Path) -> None:
    note = tmp_path / "note"
    asker = subprocess.Popen([sys.executable, "-c", ASKER, str(note)], cwd=ROOT)
    try:
        other = wait_for(note, asker)
        scores = [int(Path(f"/proc/{pid}/oom_score").read_text()) for pid in (asker.pid, other.pid)]
    finally:
        asker.kill()
        asker.wait()
    assert scores[1] > scores[0]
