"""The run folder: one owner, stale sockets cleared, strangers' files kept."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.run.rundir import RunDir, RunDirError, check_port_free

ROOT = Path(__file__).resolve().parents[2]


def test_it_is_private_and_gone_afterwards(tmp_path):
    path = tmp_path / "run"
    with RunDir(path, 8080):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path / "pcm"))
    assert not path.exists()


def test_a_second_run_is_told_who_has_it(tmp_path):
    with RunDir(tmp_path / "run", 8123):
        with pytest.raises(RunDirError, match=rf"port 8123 .*process {os.getpid()}.*--port"):
            RunDir(tmp_path / "run", 8123).__enter__()
    with RunDir(tmp_path / "run", 8123):
        pass


def test_what_a_killed_run_left_is_cleared_and_other_files_are_kept(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    (path / "notes.txt").write_text("mine")
    (path / "pcm.lock").write_text("")
    code = (
        "import os, signal, socket, sys; from pathlib import Path; from scripts.run.rundir import RunDir\n"
        "path = Path(sys.argv[1]); RunDir(path, 1).__enter__()\n"
        "socket.socket(socket.AF_UNIX).bind(str(path / 'clips.0')); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    assert (path / "clips.0").exists()
    with RunDir(path, 1):
        assert sorted(entry.name for entry in path.iterdir()) == ["notes.txt", "run.lock"]
    assert [entry.name for entry in path.iterdir()] == ["notes.txt"]


def test_a_file_in_its_place_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunDirError, match="--run-dir"):
        RunDir(tmp_path / "run", 1).__enter__()


def test_a_taken_port_is_named():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RunDirError, match=rf"port {port} is in use.*--port"):
            check_port_free("127.0.0.1", port)
    check_port_free("127.0.0.1", port)
