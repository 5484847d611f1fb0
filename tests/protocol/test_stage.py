"""The common loop in a real process, between a hop server and a result server made here."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from protocol.hop.results import Result, ResultServer
from protocol.hop.server import Acked, HopEvent, HopServer, WorkerJoined, WorkerLost
from protocol.process.pace import REST_AFTER
from protocol.process.settings import ROOT
from protocol.process.stage import FAILURES_BEFORE_EXIT
from protocol.wire.messages import Close, Failed, Frame, Status
from tests.protocol.conftest import Start
from tests.protocol.samples import one_latents

pytestmark = [pytest.mark.process, pytest.mark.timing]

MODULE = "tests.protocol.stage_worker"


class Surroundings:
    """The stages above and below a worker under test."""

    def __init__(self, ctx: zmq.Context[zmq.Socket[bytes]], run_dir: Path) -> None:
        self.hop = HopServer(ctx, f"ipc://{run_dir}/latents.0", sticky=False, dead_after=1.5)
        self.results = ResultServer(ctx, f"ipc://{run_dir}/results")
        self.events: list[HopEvent] = []
        self.messages: list[Result] = []

    def until(self, ready: Callable[[], object], seconds: float = 8.0) -> float:
        begin = time.monotonic()
        while not ready():
            assert time.monotonic() - begin < seconds, (self.events[-5:], self.messages[-5:])
            self.events += self.hop.tick()
            for sender, message in self.results.recv():
                self.messages.append(message)
                if isinstance(message, Frame) and message.index == message.count - 1:
                    self.results.confirm_clip(sender, message.session, message.epoch, message.seq)
            self.results.socket.poll(10)
        return time.monotonic() - begin

    def has(self, kind: type, n: int = 1) -> bool:
        return sum(isinstance(item, kind) for item in (*self.events, *self.messages)) >= n

    def last_status(self) -> Status | None:
        return next((m for m in reversed(self.messages) if isinstance(m, Status)), None)


@pytest.fixture
def around(ctx: zmq.Context[zmq.Socket[bytes]], run_dir: Path) -> Iterator[Surroundings]:
    surroundings = Surroundings(ctx, run_dir)
    yield surroundings
    surroundings.hop.close()
    surroundings.results.close()


def run(start: Start, run_dir: Path, *flags: object) -> subprocess.Popen[bytes]:
    return start("--run-dir", run_dir, *flags, module=MODULE)


def test_a_worker_from_warm_up_to_goodbye(around: Surroundings, run_dir: Path, start: Start) -> None:
    process = run(start, run_dir)
    around.until(lambda: around.has(Status))
    first = around.last_status()
    assert first is not None and not first.warm and around.hop.workers == 0  # no work before it is warm
    around.until(lambda: around.has(WorkerJoined))
    for seq in range(3):
        around.hop.dispatch(one_latents("s", seq))
    around.hop.dispatch(one_latents("bad"))
    around.hop.dispatch(one_latents("ill"))
    around.until(lambda: around.has(Acked, 5))
    frames = [m for m in around.messages if isinstance(m, Frame)]
    assert [(f.seq, f.index) for f in frames] == [(seq, i) for seq in range(3) for i in range(12)]
    failed = {m.session: m for m in around.messages if isinstance(m, Failed)}
    assert failed.keys() == {"bad", "ill"} and not failed["bad"].fatal
    assert "KeyError" in failed["bad"].reason and failed["ill"].reason == "no such picture"
    around.hop.broadcast(Close("s", 0))
    took = around.until(lambda: (s := around.last_status()) is not None and s.info["closed"] == ["s"])
    assert took < 0.45  # a change is told at once, not at the next half second
    status = around.last_status()
    assert status is not None and status.warm and status.metrics["resident_bytes"] > 1e6
    assert status.metrics["job_errors_total"] == 1 and status.metrics["held_jobs"] == 0
    seen = sum(isinstance(m, Status) for m in around.messages)
    around.until(lambda: sum(isinstance(m, Status) for m in around.messages) >= seen + 3, 3)
    process.send_signal(signal.SIGTERM)
    around.until(lambda: around.has(WorkerLost))
    assert process.wait(3) == 0


def test_a_worker_without_work_says_seldom_that_it_lives_and_takes_a_job_at_once(
    around: Surroundings, run_dir: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[float] = []
    note_alive = around.hop._jobs.note_alive

    def note(key: bytes, now: float, *, rests: bool = False) -> bool:
        heard.append(now)
        return note_alive(key, now, rests=rests)

    monkeypatch.setattr(around.hop._jobs, "note_alive", note)
    run(start, run_dir)
    around.until(lambda: around.has(WorkerJoined))
    begin = time.monotonic()
    around.until(lambda: time.monotonic() - begin > REST_AFTER + 5.5)
    working = sum(begin < at < begin + 1.8 for at in heard) / 1.8
    resting = sum(begin + REST_AFTER + 0.5 < at for at in heard) / 5.0
    assert 0 < resting < working / 5 and not around.has(WorkerLost)
    around.hop.dispatch(one_latents("s"))
    took = around.until(lambda: around.has(Frame, 12))
    assert took < 0.5 / resting  # the job ends its wait


def test_a_task_that_hangs_stops_the_heartbeats_and_then_the_process(
    around: Surroundings, run_dir: Path, start: Start
) -> None:
    process = run(start, run_dir, "--stall-after", "1")
    around.until(lambda: around.has(WorkerJoined))
    around.hop.dispatch(one_latents("hang"))
    took = around.until(lambda: around.has(WorkerLost))
    assert 1.0 < took < 5.0 and around.hop.pending == 1
    assert process.wait(5) == 1


def test_a_slow_task_costs_its_job_but_not_the_worker(
    around: Surroundings, run_dir: Path, start: Start
) -> None:
    run(start, run_dir, "--stall-after", "1", "--dead-after", "1")
    around.hop._jobs.dead_after = 0.8
    around.until(lambda: around.has(WorkerJoined))
    around.hop.dispatch(one_latents("slow"))
    around.until(lambda: around.has(WorkerLost))
    around.hop.broadcast(Close("slow", 0))
    around.hop.dispatch(one_latents("fine"))
    around.until(lambda: around.has(Acked))
    status = around.last_status()
    assert around.has(WorkerJoined, 2) and status is not None and status.info["resets"] == 1


def test_a_worker_whose_every_task_fails_ends_itself_and_says_why(
    around: Surroundings, run_dir: Path
) -> None:
    command = [sys.executable, "-m", MODULE, "--run-dir", str(run_dir)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    around.until(lambda: around.has(WorkerJoined))
    for seq in range(FAILURES_BEFORE_EXIT - 1):
        around.hop.dispatch(one_latents("ill", seq))
    around.hop.dispatch(one_latents("fine"))  # one that works begins the count anew
    for seq in range(FAILURES_BEFORE_EXIT - 1):
        around.hop.dispatch(one_latents("ill", 100 + seq))
    around.until(lambda: around.has(Failed, 2 * FAILURES_BEFORE_EXIT - 2))
    assert process.poll() is None
    around.hop.dispatch(one_latents("ill", 200))
    around.until(lambda: around.has(WorkerLost))
    _, told = process.communicate(timeout=10)
    assert process.returncode == 1
    assert (
        f"the last {FAILURES_BEFORE_EXIT} tasks failed, the last one by ValueError: no such picture" in told
    )


@pytest.mark.parametrize(("seed", "status", "said"), [(99, 2, "--seed 99: nobody"), (98, 1, "it broke")])
def test_a_warm_up_that_fails_says_why(run_dir: Path, seed: int, status: int, said: str) -> None:
    done = ended(run_dir, "--seed", str(seed))
    assert done.returncode == status and said in done.stderr
    assert done.stderr.count("\n") <= 3  # one line each, traceback included


def test_an_open_run_folder_is_refused(run_dir: Path) -> None:
    (run_dir / "open").mkdir()
    (run_dir / "open").chmod(0o755)
    done = ended(run_dir / "open")
    assert done.returncode == 2 and "chmod 700" in done.stderr and "Traceback" not in done.stderr


def ended(run_dir: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", MODULE, "--run-dir", str(run_dir), *flags]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=False, cwd=ROOT)


def test_a_signal_during_warm_up_ends_it(run_dir: Path, start: Start, around: Surroundings) -> None:
    process = run(start, run_dir)
    around.until(lambda: around.has(Status))
    process.send_signal(signal.SIGINT)
    assert process.wait(3) == 0


def test_a_signal_in_the_middle_of_a_task_ends_it_with_a_goodbye(
    around: Surroundings, run_dir: Path, start: Start
) -> None:
    process = run(start, run_dir)
    around.until(lambda: around.has(WorkerJoined))
    around.hop.dispatch(one_latents("slow"))
    around.until(lambda: around.hop.in_flight == 1)
    time.sleep(0.2)  # it has begun
    process.send_signal(signal.SIGTERM)
    took = around.until(lambda: around.has(WorkerLost))
    assert process.wait(3) == 0 and took < 1.0  # the task lasts 2.2 s, and a silent worker is lost after 1.5
    lost = next(event for event in around.events if isinstance(event, WorkerLost))
    assert lost.redispatched == 1
