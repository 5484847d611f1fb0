"""Keeps a set of child processes running: their output, restarts, readiness, and a stop that leaves nothing.

One thread and one `select` loop, so that every child is forked from the main thread and no signal finds
half a state.
"""

from __future__ import annotations

import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from protocol.process.cause import describe_end
from scripts.run.child import Child
from scripts.run.restart import GiveUp, RestartPolicy
from scripts.run.runlog import RunLog

#: Seconds between two looks at the children, and the same once all of them work. An end, a line or a signal
#: does not wait for it.
TICK, CALM_TICK = 0.1, 2.5
TERM_GRACE = 3.5  # seconds between TERM and KILL; the whole stop stays under five
READY_EVERY = 0.25
WAITING_EVERY = 10.0
#: Seconds between two turns of the supervisor from which on it was kept from running itself.
MOST_BETWEEN_TURNS = 4.0


@dataclass(slots=True)
class StageProcess:
    """A process to keep running. The log and the messages call it `name`: `stage`, or `stage.number`."""

    name: str
    command: Sequence[str]
    policy: RestartPolicy = field(default_factory=RestartPolicy)
    child: Child | None = None
    restart_at: float | None = None
    given_up: bool = False
    #: Whether the process is wanted now. It is started once this says so. None: at once.
    wanted: Callable[[], bool] | None = None
    #: Whether the run goes on without it.
    optional: bool = False

    @property
    def stage(self) -> str:
        """The stage of which this is a worker."""
        return self.name.partition(".")[0]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Answer of a readiness probe. `waiting_for` names the parts that are not ready."""

    ready: bool
    waiting_for: str = ""


class Supervisor:
    """Starts the workers of the stages, restarts those that end, stops all on a signal.

    A worker that fails again and again is given up. The others go on, and all are stopped when a stage has no
    worker left. A worker that cannot work with its configuration stops all too, unless the run was ready.

    `probe` is asked until it says ready, then `on_ready` is called, once.

    A process that gave signs of life and then none for `silent_after` seconds is killed and started again. It
    may be stopped, or hang where nothing else notices it.
    """

    def __init__(
        self,
        stages: Sequence[StageProcess],
        log: RunLog,
        *,
        probe: Callable[[], Readiness] | None = None,
        on_ready: Callable[[], None] = lambda: None,
        silent_after: float = 8.0,
    ) -> None:
        self.stages = list(stages)
        self.log = log
        self.failed = False
        self._probe = probe
        self._on_ready = on_ready
        self._silent_after = silent_after
        self._turned_at = time.monotonic()
        self._was_ready = False
        self._next_probe = 0.0
        self._next_waiting = 0.0
        self._stop_reason = ""
        self._selector = selectors.DefaultSelector()
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ, self._woken)

    def run(self) -> int:
        """Run until told to stop or a stage has no worker left. Exit status: 0 if told to, 1 otherwise."""
        with self._signals():
            try:
                now = time.monotonic()
                self._next_waiting = now + WAITING_EVERY
                for stage in self.stages:
                    if stage.wanted is None:
                        self._start(stage, now)
                while not self._stop_reason:
                    self._turn()
                if not self.failed:
                    self.log.note(f"stopping ({self._stop_reason})")
            finally:
                self._stop_all()
        return 1 if self.failed else 0

    def stop(self, reason: str) -> None:
        """Ask for a stop, from any thread. `reason` is for the log."""
        self._stop_reason = self._stop_reason or reason
        with suppress(OSError):  # it is full, so the loop goes round anyway, or the run is over
            self._waker.send(b"\0")

    def workers_left(self) -> dict[str, int]:
        """How many workers of each stage are not given up."""
        counts = dict.fromkeys((worker.stage for worker in self.stages), 0)
        for worker in self.stages:
            counts[worker.stage] += not worker.given_up
        return counts

    def _turn(self) -> None:
        self._read_outputs(self._seconds_to_look())
        now = time.monotonic()
        was_away, self._turned_at = now - self._turned_at > MOST_BETWEEN_TURNS, now
        for stage in self.stages:
            if stage.child is not None and was_away:
                stage.child.forgive_silence(now)
            if stage.child is not None:
                self._watch(stage, stage.child, now)
            elif stage.wanted is not None and stage.wanted():
                stage.wanted = None
                self._start(stage, now)
            elif stage.restart_at is not None and now >= stage.restart_at:
                self._start(stage, now)
        if self._probe is not None and now >= self._next_probe:
            self._ask_ready(self._probe, now)

    def _seconds_to_look(self) -> float:
        coming = any(
            stage.restart_at is not None or (stage.child is not None and stage.child.ready_at is None)
            for stage in self.stages
        )
        return TICK if coming or self._probe is not None else CALM_TICK

    def _start(self, stage: StageProcess, now: float) -> None:
        stage.restart_at = None
        try:
            stage.child = Child(stage.name, stage.command, now)
        except (OSError, subprocess.SubprocessError) as error:  # no memory or no processes left, for a moment
            self._decide(stage, None, 1, f"no process: {error}", f"could not be started ({error})")
            return
        self._selector.register(stage.child.output, selectors.EVENT_READ, stage)
        self.log.stage_started(stage.name, stage.child.pid)

    def _watch(self, stage: StageProcess, child: Child, now: float) -> None:
        child.note_signs(now)
        status = child.status()
        if status is None and not self._stop_reason:
            self._kill_if_silent(stage, child, now)
        if status is None or self._stop_reason:
            return
        child.note_signs(now)  # the stage may have become ready just before it ended
        self._forget(stage, child)
        worked_for = None if child.ready_at is None else now - child.ready_at
        how = describe_end(status, self.log.tail(stage.name), child.oom_kills())
        what = f"ended with {how}, {now - child.started_at:.1f} s after its start"
        self._decide(stage, worked_for, status, how, what)

    def _kill_if_silent(self, stage: StageProcess, child: Child, now: float) -> None:
        if child.alive_at is not None and now - child.alive_at > self._silent_after:
            self.log.note(
                f"{stage.name} has given no sign of life for {now - child.alive_at:.0f} s; it is killed"
            )
            child.alive_at = None  # said and done once
            child.signal_group(signal.SIGKILL)

    def _decide(
        self, stage: StageProcess, worked_for: float | None, status: int, how: str, what: str
    ) -> None:
        """Start the stage again later, or give it up. The last two words are for the log."""
        decision = stage.policy.ended(worked_for, status, how)
        if isinstance(decision, GiveUp):
            self._give_up(stage, decision)
        else:
            stage.restart_at = time.monotonic() + decision.delay
            self.log.note(f"{stage.name} {what}; starting it again in {decision.delay:g} s")

    def _give_up(self, worker: StageProcess, decision: GiveUp) -> None:
        worker.given_up = True
        left = self.workers_left()[worker.stage]
        lines = [f"{worker.name} {decision.reason}. Its last lines:"]
        lines += [f"    {line}" for line in self.log.tail(worker.name)] or ["    (it printed nothing)"]
        if worker.optional:
            lines.append(f"{worker.name} is not started again; the run goes on without it")
        elif left and (self._was_ready or not decision.misconfigured):
            total = sum(other.stage == worker.stage for other in self.stages)
            lines.append(
                f"{worker.name} is not started again; the run goes on with {left} of {total} {worker.stage}s"
            )
        else:
            self.failed = True
            self._stop_reason = f"{worker.name} gave up"
            lines.append(f"Everything is stopped. The whole log: {self.log.path}")
        for line in lines:
            self.log.note(line)

    def _forget(self, stage: StageProcess, child: Child) -> None:
        """Take the last output of an ended child and let go of it."""
        for line in child.read_lines(last=True):
            self.log.stage_line(stage.name, line)
        self._unwatch(child)
        child.close()
        stage.child = None

    def _unwatch(self, child: Child) -> None:
        try:
            self._selector.unregister(child.output)
        except KeyError:
            pass

    def _read_outputs(self, timeout: float) -> None:
        self.log.flush()
        for key, _ in self._selector.select(timeout):
            if isinstance(key.data, socket.socket):  # `stop` or a signal, whose handler has run
                key.data.recv(64)
                continue
            stage: StageProcess = key.data
            if stage.child is None:
                continue
            for line in stage.child.read_lines():
                self.log.stage_line(stage.name, line)
            if stage.child.ended:
                self._unwatch(stage.child)

    def _ask_ready(self, probe: Callable[[], Readiness], now: float) -> None:
        state = probe()
        self._next_probe = now + READY_EVERY
        if state.ready:
            self._probe = None
            self._was_ready = True
            self._on_ready()
        elif now >= self._next_waiting:
            self._next_waiting = now + WAITING_EVERY
            self.log.note(f"waiting for {state.waiting_for or 'the gateway'}")

    def _stop_all(self) -> None:
        children = [(stage, stage.child) for stage in self.stages if stage.child is not None]
        for _, child in children:
            child.signal_group(signal.SIGTERM)
        deadline = time.monotonic() + TERM_GRACE
        alive = children
        while alive and time.monotonic() < deadline:
            self._read_outputs(TICK / 2)
            alive = [(stage, child) for stage, child in alive if child.status() is None]
        for stage, child in alive:
            self.log.note(f"{stage.name} did not stop within {TERM_GRACE:g} s: killed")
            child.signal_group(signal.SIGKILL)
        deadline = time.monotonic() + 1.0
        while any(child.status() is None for _, child in alive) and time.monotonic() < deadline:
            time.sleep(0.01)
        for stage, child in children:
            self._forget(stage, child)
        self._selector.close()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """INT, TERM and HUP ask for a stop. These and the end of a child wake `select`."""

        def handler(number: int, _frame: object) -> None:
            self._stop_reason = self._stop_reason or signal.Signals(number).name

        before_fd = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        numbers = [signal.SIGINT, signal.SIGTERM]
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup asked to outlive the terminal
            numbers.append(signal.SIGHUP)
        before = {number: signal.signal(number, handler) for number in numbers}
        # Python tells the waker of signals that have a handler alone.
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        try:
            yield
        finally:
            for number, old in before.items():
                signal.signal(number, old)
            signal.set_wakeup_fd(before_fd)
            self._woken.close()
            self._waker.close()
