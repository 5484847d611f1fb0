"""The supervisor over small real processes: output, restarts, giving up, and leaving nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.helpers.waiting import wait_for

pytestmark = [pytest.mark.process, pytest.mark.timing]

ROOT = Path(__file__).resolve().parents[2]

LOOP = "import time\nwhile True: time.sleep(1)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True)\n{LOOP}"
READY = (
    f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
    "from protocol.process.ready import tell_ready; tell_ready()\n"
)
ALIVE = (
    READY + "import time; from protocol.process.ready import tell_alive\n"
    "while True: tell_alive(); time.sleep(0.1)"
)
CRASH = "print('loading weights'); raise SystemExit('no such file: unet.pth')"


class Run:
    """A supervisor process over fake stages; `marker` is in every stage's command line, to find them by."""

    def __init__(self, folder: Path, stages: dict[str, str], *more: str) -> None:
        self.folder = folder
        self.marker = f"marker-{folder.name}-{os.getpid()}"
        commands = [[name, [sys.executable, "-c", code, self.marker]] for name, code in stages.items()]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.scripts.fake_run", str(folder), json.dumps(commands), *more],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def pids(self) -> list[int]:
        """Processes whose command line carries the marker, the supervisor left out."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.process.pid:
                continue
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if self.marker.encode() in words:
                found.append(int(entry.name))
        return found

    def wait_ready(self) -> None:
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready: fake\n"

    def log(self) -> str:
        (path,) = (self.folder / "logs").glob("run_*.log")
        return path.read_text()


#: Starts a supervisor over stages, given as name → Python code, with further arguments of `fake_run`.
Start = Callable[..., Run]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    runs: list[Run] = []

    def make(stages: dict[str, str], *more: str) -> Run:
        runs.append(Run(tmp_path, stages, *more))
        return runs[-1]

    yield make
    for run in runs:
        if run.process.poll() is None:
            run.process.terminate()
        run.process.communicate(timeout=10)


def test_output_goes_to_the_log_and_warnings_to_the_console(start: Start) -> None:
    code = (
        f"print('INFO quiet', flush=True); print('12:00:00.001 WARNING worker.0 a: hot', flush=True)\n{LOOP}"
    )
    run = start({"worker": code})
    run.wait_ready()
    assert wait_for(lambda: "\n12:00:00.001 WARNING worker.0 a: hot\n" in run.log(), 3)
    run.process.send_signal(signal.SIGTERM)
    _, console = run.process.communicate(timeout=5)
    assert run.process.returncode == 0
    assert "[worker] INFO quiet" in run.log()
    assert "12:00:00.001 WARNING worker.0 a: hot\n" in console
    assert "quiet" not in console


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_everything_within_five_seconds(start: Start, number: signal.Signals) -> None:
    run = start({"polite": LOOP, "stubborn": STUBBORN})
    run.wait_ready()
    assert wait_for(lambda: "[stubborn] up" in run.log(), 3)
    began = time.monotonic()
    run.process.send_signal(number)
    run.process.communicate(timeout=8)
    assert time.monotonic() - began < 5
    assert run.process.returncode == 0
    assert run.pids() == []
    assert not (run.folder / "run").exists()


def test_a_killed_supervisor_leaves_no_stage(start: Start) -> None:
    run = start({"a": LOOP, "stubborn": STUBBORN})
    run.wait_ready()
    assert wait_for(lambda: len(run.pids()) == 2, 10)
    run.process.kill()
    assert wait_for(lambda: run.pids() == [], 3)


def test_a_crashed_stage_comes_back(start: Start) -> None:
    run = start({"worker": LOOP, "other": LOOP})
    run.wait_ready()
    assert wait_for(lambda: len(run.pids()) == 2, 10)
    victim = min(run.pids())
    os.kill(victim, signal.SIGKILL)
    assert wait_for(lambda: len(run.pids()) == 2 and victim not in run.pids(), 10)
    assert "signal 9 (SIGKILL)" in run.log()
    assert run.process.poll() is None


def test_three_quick_failures_end_the_run_and_say_why(start: Start) -> None:
    run = start({"gateway": LOOP, "gpu_worker": CRASH})
    _, console = run.process.communicate(timeout=15)
    assert run.process.returncode == 1
    assert "gpu_worker ended 3 times in a row before it was ready, last with status 1" in console
    assert "no such file: unet.pth" in console
    assert console.count("starting it again") == 2
    assert run.pids() == []
    assert not (run.folder / "run").exists()


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ("raise MemoryError('no room for 3 GB')", "status 1, out of memory: MemoryError: no room for 3 GB"),
        ("import os; os.kill(os.getpid(), 9)", "signal 9 (SIGKILL): killed"),
        (
            "print('12:00:00.001 CRITICAL gpu_worker.0 x: it ends | Traceback | OutOfMemoryError: CUDA out of"
            " memory. Tried 2 GiB'); raise SystemExit(1)",
            "status 1, out of GPU memory: OutOfMemoryError: CUDA out of memory. Tried 2 GiB",
        ),
    ],
)
def test_a_stage_that_fails_slowly_is_given_up_with_its_reason(start: Start, last: str, told: str) -> None:
    """It lives longer each time than a worker has to work for; it never says that it works."""
    run = start({"gateway": LOOP, "gpu_worker": f"import time; time.sleep(0.4)\n{last}"}, "0.1")
    _, console = run.process.communicate(timeout=20)
    assert run.process.returncode == 1
    assert "gpu_worker ended 3 times in a row before it was ready, last with " + told in console
    assert console.count("starting it again") == 2


def test_a_stage_that_works_and_dies_is_started_for_ever(start: Start) -> None:
    run = start({"worker": f"{READY}import time; time.sleep(0.4); raise SystemExit(1)"}, "0.1")
    run.wait_ready()
    assert wait_for(lambda: run.log().count("starting it again") >= 5, 20)
    run.process.send_signal(signal.SIGTERM)
    run.process.communicate(timeout=5)
    assert run.process.returncode == 0


def test_a_stage_that_dies_at_its_first_job_is_given_up(start: Start) -> None:
    """To be ready is not enough: it must have worked."""
    run = start({"gpu_worker": f"{READY}raise SystemExit(1)"})
    _, console = run.process.communicate(timeout=15)
    assert "ended 3 times in a row before it had worked for 30 s" in console


def test_one_worker_of_four_that_is_given_up_leaves_the_run_going(start: Start) -> None:
    workers = {f"encoder_worker.{k}": READY + LOOP for k in range(3)}
    run = start({"gateway": LOOP, "encoder_worker.3": f"{READY}{CRASH}", **workers})
    run.wait_ready()
    told = "encoder_worker.3 is not started again; the run goes on with 3 of 4 encoder_workers"
    assert wait_for(lambda: told in run.log(), 15)
    assert "no such file: unet.pth" in run.log()
    assert run.process.poll() is None and len(run.pids()) == 4
    run.process.send_signal(signal.SIGTERM)
    assert run.process.wait(5) == 0


def test_the_run_ends_when_a_stage_has_no_worker_left(start: Start) -> None:
    run = start({"gateway": LOOP, "encoder_worker.0": CRASH, "encoder_worker.1": CRASH})
    _, console = run.process.communicate(timeout=20)
    assert run.process.returncode == 1
    assert console.count("the run goes on with 1 of 2 encoder_workers") == 1
    assert console.count("Everything is stopped.") == 1
    assert run.pids() == []


def test_a_program_that_cannot_be_started_is_given_up_like_one_that_fails(tmp_path: Path) -> None:
    commands = json.dumps([["gateway", ["/nowhere/python"]]])
    done = subprocess.run(
        [sys.executable, "-m", "tests.scripts.fake_run", str(tmp_path), commands],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    assert done.returncode == 1
    assert "gateway could not be started" in done.stderr and "/nowhere/python" in done.stderr


def test_a_stage_that_cannot_work_is_not_tried_again(start: Start) -> None:
    run = start({"gpu_worker": "import sys; print('config: no key vae'); sys.exit(2)"})
    _, console = run.process.communicate(timeout=10)
    assert run.process.returncode == 1
    assert "cannot work with this configuration" in console
    assert "config: no key vae" in console
    assert "starting it again" not in console


def test_what_an_ended_stage_left_in_its_group_ends_too(start: Start) -> None:
    code = f"""
import subprocess, sys
subprocess.Popen([sys.executable, "-c", {LOOP!r}, sys.argv[1]])
print("forked", flush=True)
{LOOP}"""
    run = start({"worker": code})
    run.wait_ready()
    assert wait_for(lambda: len(run.pids()) == 2, 10)
    first = set(run.pids())
    os.kill(min(first), signal.SIGKILL)
    assert wait_for(lambda: len(run.pids()) == 2 and not first & set(run.pids()), 10)


def test_a_flood_of_output_without_newlines_is_cut_and_blocks_nobody(start: Start) -> None:
    flood = f"import sys; sys.stdout.write('x' * 3_000_000); sys.stdout.flush()\n{LOOP}"
    run = start({"flood": flood, "worker": f"print('here', flush=True)\n{LOOP}"})
    run.wait_ready()
    assert wait_for(lambda: "[worker] here" in run.log(), 3)
    assert wait_for(lambda: run.log().count("x") >= 2_900_000, 5)


def test_a_worker_that_stands_still_is_killed_and_comes_back(start: Start) -> None:
    run = start({"fine": ALIVE, "still": ALIVE}, "30", "1.5")
    run.wait_ready()
    assert wait_for(lambda: len(run.pids()) == 2, 5)
    time.sleep(1.0)  # signs of life have come
    (still,) = [int(pid) for pid in re.findall(r"\[still\] started as process (\d+)", run.log())]
    os.kill(still, signal.SIGSTOP)
    assert wait_for(lambda: "still has given no sign of life" in run.log(), 10)
    assert wait_for(lambda: len(run.pids()) == 2 and still not in run.pids(), 10)
    assert "fine has given no sign" not in run.log()


def test_a_worker_that_never_gives_signs_of_life_is_left_alone(start: Start) -> None:
    run = start({"old": READY + LOOP}, "30", "1")
    run.wait_ready()
    time.sleep(2.5)
    assert "no sign of life" not in run.log()
