"""A run with a full disk or a console that nobody reads goes on, and later tells how many lines are gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts.run.console import MAX_WAITING_BYTES, Console
from tests.helpers.waiting import wait_for
from tests.scripts.test_supervisor import Run

pytestmark = [pytest.mark.process, pytest.mark.timing]

#: A stage that writes a line of 200 characters every few milliseconds and counts them.
TALKER = """
import itertools, time
for number in itertools.count():
    print(f"tick {number} {'x' * 200}", flush=True)
    time.sleep(0.005)
"""
#: A stage that writes more warnings than a pipe holds.
WARNER = """
import time
while True:
    for number in range(50):
        print(f"WARNING {number} {'x' * 200}", flush=True)
    time.sleep(0.02)
"""


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 256 KiB at `folder`; skips where none may be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system may be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[dict[str, str]], Run]]:
    runs: list[Run] = []

    def make(stages: dict[str, str]) -> Run:
        runs.append(Run(tmp_path, stages))
        return runs[-1]

    yield make
    for run in runs:
        run.process.kill()
        run.process.communicate(timeout=10)


def last_tick(run: Run) -> int:
    return max(map(int, re.findall(r"tick (\d+)", run.log())), default=-1)


def check_the_run_went_on(run: Run, reason: str, free: Callable[[], None]) -> None:
    """The log is stuck now. Free its place, and check the lines of the run about it."""
    stuck = last_tick(run)
    time.sleep(0.5)
    assert last_tick(run) == stuck and run.process.poll() is None
    pids = run.pids()
    free()
    assert wait_for(lambda: f"lines are missing here: {reason}" in run.log(), 5)
    found = re.search(r"(\d+) lines are missing here", run.log())
    assert found and int(found[1]) > 10
    assert wait_for(lambda: last_tick(run) > stuck + int(found[1]), 5)
    assert run.pids() == pids
    run.process.send_signal(signal.SIGTERM)
    _, console = run.process.communicate(timeout=5)
    assert run.process.returncode == 0
    assert f"the log is not written ({reason}); the run goes on without" in console
    assert f"the log is written again; {found[1]} lines are missing" in console
    # No line is torn.
    assert all(re.fullmatch(r"# .*|\S+ \[\S+\] .*", line) for line in run.log().splitlines())


def test_a_full_disk_under_the_log(start: Callable[[dict[str, str]], Run], tmp_path: Path) -> None:
    with small_disk(tmp_path / "logs"):
        filler = tmp_path / "logs/filler"
        filler.write_bytes(b"x" * 200_000)
        run = start({"talker": TALKER})
        run.wait_ready()
        assert wait_for(lambda: os.statvfs(tmp_path / "logs").f_bavail == 0, 20)
        time.sleep(0.3)
        check_the_run_went_on(run, "No space left on device", filler.unlink)


def test_a_file_that_may_not_grow(start: Callable[[dict[str, str]], Run]) -> None:
    run = start({"talker": TALKER})
    run.wait_ready()
    limit = 20_000
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (limit, hard))
    assert wait_for(lambda: len(run.log()) > limit - 300, 20)
    time.sleep(0.3)
    check_the_run_went_on(
        run,
        "File too large",
        lambda: resource.prlimit(run.process.pid, resource.RLIMIT_FSIZE, (soft, hard)) and None,
    )


def test_a_console_that_nobody_reads_holds_nothing_up(start: Callable[[dict[str, str]], Run]) -> None:
    run = start({"talker": TALKER, "warner": WARNER})
    run.wait_ready()
    # Far more than the pipe and the console's own queue hold.
    assert wait_for(lambda: run.log().count("WARNING") * 200 > 4 * (MAX_WAITING_BYTES + 65536), 30)
    seen = last_tick(run)
    assert wait_for(lambda: last_tick(run) > seen + 20, 5)
    began = time.monotonic()
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(8) == 0
    assert time.monotonic() - began < 5
    assert run.pids() == []


def test_a_reader_that_comes_back_is_told_how_much_it_missed(start: Callable[[dict[str, str]], Run]) -> None:
    run = start({"warner": WARNER})
    run.wait_ready()
    assert wait_for(lambda: run.log().count("WARNING") * 200 > 4 * (MAX_WAITING_BYTES + 65536), 30)
    assert run.process.stderr is not None
    for line in run.process.stderr:
        if found := re.fullmatch(r"\((\d+) lines are left out here; the log has them\)\n", line):
            assert int(found[1]) > 100
            break
    for line in run.process.stderr:
        if "WARNING" in line:
            break


@pytest.mark.parametrize("kind", ["pipe", "terminal", "socket"])
def test_no_line_waits_for_a_reader(kind: str) -> None:
    """Twenty times the capacity of any of them is written in the time of a few calls."""
    ends = [socket.socketpair(), None][kind != "socket"]
    if ends is not None:
        reader, writer = (end.detach() for end in ends)
    else:
        reader, writer = os.pipe() if kind == "pipe" else os.openpty()
    with os.fdopen(writer, "w") as stream:
        console = Console(stream)
        assert not fcntl.fcntl(stream.fileno(), fcntl.F_GETFL) & os.O_NONBLOCK
        began = time.monotonic()
        for _ in range(20_000):
            console.write_line("x" * 200)
        console.close()
        assert time.monotonic() - began < 5
    os.close(reader)


def test_a_reader_that_is_gone_ends_nothing() -> None:
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        console = Console(stream)
        os.close(reader)
        console.write_line("nobody hears this")
        console.write_line("nor this")
        console.close()


def test_a_process_without_a_console_runs(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from scripts.run.runlog import RunLog;"
        "log = RunLog(pathlib.Path(sys.argv[1])); log.note('here'); log.announce('ready'); log.close()"
    )
    root = Path(__file__).resolve().parents[2]
    command = f'exec "{sys.executable}" -c "{code}" "{tmp_path}" >&- 2>&-'
    subprocess.run(["bash", "-c", command], cwd=root, check=True)
    (log,) = tmp_path.glob("run_*.log")
    assert "[run] here\n" in log.read_text()
