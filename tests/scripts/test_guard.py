"""A launcher that is killed leaves no sockets and no folder, and the next run starts at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.run.managed import ROOT, ManagedRun, free_port
from scripts.run.rundir import RunDir
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.process

HOLD = """
import sys, time
from pathlib import Path
from scripts.run.guard import guarded
from scripts.run.rundir import RunDir
with RunDir(Path(sys.argv[1]), 1) as run, guarded(run.path, 1):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(folder)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def guards(folder: Path) -> list[int]:
    """The guards of this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if b"scripts.run.guard" in words and os.fsencode(folder) in words:
            found.append(int(entry.parent.name))
    return found


def test_a_killed_process_group_leaves_no_folder_and_no_guard(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = hold(folder)
    (folder / "clips.0.lock").touch()
    assert len(guards(folder)) == 1
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=10)
    assert wait_for(lambda: not folder.exists() and not guards(folder), 10)


def test_files_that_nobody_knows_stay(tmp_path: Path) -> None:
    process = hold(tmp_path / "run")
    (tmp_path / "run/notes.txt").write_text("mine")
    process.kill()
    process.communicate(timeout=10)
    assert wait_for(lambda: not guards(tmp_path / "run"), 10)
    assert (tmp_path / "run/notes.txt").read_text() == "mine"


def test_an_ordinary_end_leaves_no_guard(tmp_path: Path) -> None:
    process = hold(tmp_path / "run")
    process.communicate(timeout=10)
    assert process.returncode == 0 and not (tmp_path / "run").exists()
    assert wait_for(lambda: not guards(tmp_path / "run"), 5)


def test_the_next_run_may_start_at_once(tmp_path: Path) -> None:
    for _ in range(5):
        process = hold(tmp_path / "run")
        process.kill()
        process.communicate(timeout=10)
        with RunDir(tmp_path / "run", 1):
            assert (tmp_path / "run").is_dir()
    assert wait_for(lambda: not guards(tmp_path / "run"), 5)
    assert not (tmp_path / "run").exists()


def test_a_killed_launcher_leaves_no_sockets(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    port = free_port()
    with ManagedRun("--passthrough", "--run-dir", str(folder), port=port) as run:
        stages = run.pids()
        assert len(stages) == 4 and any(entry.is_socket() for entry in folder.iterdir())
        run.process.kill()
        run.process.wait()
        assert wait_for(lambda: not folder.exists(), 5)
        assert wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in stages), 5)
