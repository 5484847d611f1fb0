"""The run folder: one owner, stale sockets cleared, and nothing of anybody else's changed."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.hop.run_folder import MARK
from protocol.process.settings import default_run_dir
from scripts.run.managed import free_port
from scripts.run.rundir import RunDir, RunDirError, check_port_free, make_subfolder
from scripts.run.runlog import RunLog

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[2]


def test_it_is_private_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with RunDir(path, 8080):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(path / "pcm"))
    assert not path.exists()


def test_a_second_run_is_told_who_has_it(tmp_path: Path) -> None:
    with RunDir(tmp_path / "run", 8123):
        with pytest.raises(RunDirError, match=rf"port 8123 .*process {os.getpid()}.*--port"):
            RunDir(tmp_path / "run", 8123).__enter__()
    with RunDir(tmp_path / "run", 8123):
        pass


KILLED = """
import os, signal, socket, sys
from pathlib import Path
from scripts.run.rundir import RunDir, make_subfolder
path = Path(sys.argv[1])
RunDir(path, 1).__enter__()
socket.socket(socket.AF_UNIX).bind(str(path / "clips.0"))
(path / "clips.0.lock").touch()
(make_subfolder(path, "poses") / "0.npz").touch()
os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_a_run(path: Path) -> None:
    """A run that has a socket and converted poses in `path` and is killed."""
    done = subprocess.run([sys.executable, "-c", KILLED, str(path)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL


def launch(path: Path) -> subprocess.CompletedProcess[str]:
    """The launcher, as `scripts/run_all.sh` runs it."""
    command = [sys.executable, "-m", "scripts.run", "--run-dir", str(path), "--port", str(free_port())]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def state_of(path: Path) -> dict[str, tuple[int, int, bytes]]:
    """Everything below `path` with its mode, the time of its last change, and its content."""
    return {
        str(p.relative_to(path)): (
            p.lstat().st_mode,
            p.lstat().st_mtime_ns,
            p.read_bytes() if p.is_file() else b"",
        )
        for p in [path, *path.rglob("*")]
    }


def names(path: Path) -> list[str]:
    return sorted(entry.name for entry in path.iterdir())


def test_what_a_killed_run_left_is_cleared_and_other_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "run"
    kill_a_run(path)
    assert {"clips.0", "clips.0.lock", "poses"} <= set(names(path))
    (path / "notes.txt").write_text("mine")
    (path / "compiled").mkdir()
    (path / "compiled" / "thesis.txt").write_text("mine")
    (path / "pcm").write_text("mine, and no socket")
    kept = ["compiled", "notes.txt", "pcm"]
    with RunDir(path, 1):
        assert names(path) == sorted([MARK, *kept, "run.lock"])
    assert names(path) == sorted([MARK, *kept])
    assert (path / "compiled" / "thesis.txt").read_text() == "mine"
    with RunDir(path, 1):  # the mark stayed with the files, so the folder is taken again
        pass
    for file in (path / "notes.txt", path / "pcm", path / "compiled" / "thesis.txt"):
        file.unlink()
    (path / "compiled").rmdir()
    with RunDir(path, 1):
        pass
    assert not path.exists()


def test_clearing_follows_no_link(tmp_path: Path) -> None:
    path, mine = tmp_path / "run", tmp_path / "mine"
    kill_a_run(path)
    kill_a_run(mine)  # a marked folder elsewhere
    before = state_of(mine)
    (path / "compiled").symlink_to(mine)
    (path / "poses" / "more").symlink_to(mine)
    (path / "latents.0").symlink_to(mine / "clips.0")
    with RunDir(path, 1):
        assert names(path) == [MARK, "compiled", "latents.0", "run.lock"]
    assert state_of(mine) == before


def test_a_folder_that_is_somebodys_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "project"
    (path / "poses").mkdir(parents=True)
    (path / "poses" / "a.npy").write_text("mine")
    (path / "pcm.lock").write_text("")
    (path / "thesis.txt").write_text("mine")
    path.chmod(0o755)
    before = state_of(path)
    done = launch(path)
    assert done.returncode == 1
    assert re.fullmatch(rf"echomimic-live: run folder {path} holds files .*--run-dir.*\n", done.stderr)
    assert state_of(path) == before


@pytest.mark.parametrize("file", [(), ("somebody.txt",)])
def test_a_folder_that_others_share_is_refused_and_keeps_its_mode(
    tmp_path: Path, file: tuple[str, ...]
) -> None:
    path = tmp_path / "tmp"
    path.mkdir()
    path.chmod(0o1777)
    for name in file:
        (path / name).touch()
    before = state_of(path)
    done = launch(path)
    assert done.returncode == 1
    assert str(path) in done.stderr and "--run-dir" in done.stderr
    assert state_of(path) == before


def test_an_empty_private_folder_is_taken_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "mine"
    path.mkdir(mode=0o700)
    with RunDir(path, 1):
        assert (path / MARK).is_file()
    assert names(path) == []
    kill_a_run(path)
    with RunDir(path, 1):
        pass
    assert names(path) == []


@pytest.mark.parametrize("mark", ["link", "pipe", "other text"])
def test_a_mark_that_no_run_wrote_counts_for_nothing(tmp_path: Path, mark: str) -> None:
    path, real = tmp_path / "mine", tmp_path / "real"
    path.mkdir(mode=0o700)
    kill_a_run(real)
    if mark == "link":
        (path / MARK).symlink_to(real / MARK)
    elif mark == "pipe":
        os.mkfifo(path / MARK)
    else:
        (path / MARK).write_text("mine")
    with pytest.raises(RunDirError, match="holds files"):
        RunDir(path, 1).__enter__()
    assert names(path) == [MARK]


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "there")
    with pytest.raises(RunDirError, match="--run-dir"):
        RunDir(tmp_path / "link", 1).__enter__()
    assert names(tmp_path / "there") == []


def leave_as_before_the_mark(path: Path) -> None:
    """The leftovers of a killed run of a version without the mark."""
    path.mkdir(mode=0o700)
    (path / "run.lock").write_text("4711\n")
    (path / "pcm.lock").touch()
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path / "pcm"))


def test_a_killed_run_of_a_version_without_the_mark_does_not_block(tmp_path: Path) -> None:
    path = tmp_path / "run"
    leave_as_before_the_mark(path)
    with RunDir(path, 1):
        assert names(path) == [MARK, "run.lock"]
    assert names(path) == []


def test_the_default_place_is_gone_afterwards_whatever_version_was_killed_there() -> None:
    port = free_port()
    path = default_run_dir(port)
    for before in (None, kill_a_run, leave_as_before_the_mark):
        if before is not None:
            before(path)
        with RunDir(path, port):
            assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert not path.exists()


def test_poses_of_a_version_without_the_mark_are_kept_in_the_default_place() -> None:
    port = free_port()
    path = default_run_dir(port)
    leave_as_before_the_mark(path)
    (path / "poses").mkdir()
    try:
        with RunDir(path, port):
            assert make_subfolder(path, "poses") == path / "poses-1"
        assert names(path) == [MARK, "poses"]
    finally:
        shutil.rmtree(path)


def test_a_log_folder_with_files_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "run_20260101-000000.log").write_text("mine")
    (tmp_path / "notes.txt").write_text("mine")
    tmp_path.chmod(0o755)
    before = state_of(tmp_path)
    log = RunLog(tmp_path)
    log.close()
    after = state_of(tmp_path)
    assert after.pop(log.path.name)
    assert {name: entry[::2] for name, entry in after.items()} == {
        name: entry[::2] for name, entry in before.items()
    }


def test_a_file_in_its_place_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(RunDirError, match="--run-dir"):
        RunDir(tmp_path / "run", 1).__enter__()


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(RunDirError, match=rf"port {port} is in use.*--port"):
            check_port_free("127.0.0.1", port)
    check_port_free("127.0.0.1", port)
