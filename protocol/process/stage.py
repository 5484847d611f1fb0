"""The loop that every worker stage runs: sockets, signals, heartbeats, status, and a thread for the work.

    settings = settings_from_command_line()
    with Stage("encoder_worker", settings, takes="latents") as stage:
        stage.run(EncoderWorker(settings, stage))

The exit status says how it ended:
- 0: after SIGTERM or SIGINT.
- 2: the settings cannot work, so a restart would not help.
- 1: any other error.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Container
from types import FrameType, TracebackType

import zmq

from protocol.hop.client import HopClient, Job
from protocol.hop.endpoints import EndpointError
from protocol.hop.results import ResultClient
from protocol.hop.server import HopEvent, HopServer
from protocol.process.c_allocator import ReturnTimer, return_freed_memory
from protocol.process.compute import Compute, Output
from protocol.process.logs import set_up_logging
from protocol.process.metrics import Metrics
from protocol.process.pace import LoopPace
from protocol.process.ready import tell_alive, tell_ready
from protocol.process.settings import Settings, SettingsError
from protocol.wire.limits import ProtocolError, shorten
from protocol.wire.messages import ClipKey, Close, Failed, InfoValue, Pcm, Status, Work
from protocol.wire.phrases import phrase

logger = logging.getLogger(__name__)

#: Seconds after a heartbeat from which on the loop sends the next one, whatever it woke for.
HEARTBEAT_AFTER = 0.08
#: Whether the hop keeps a session with one worker.
STICKY = {"clips": True, "latents": False}
#: Times `--stall-after` that one task may take before the worker ends itself.
STALLS_BEFORE_EXIT = 3.0
#: After this many failed tasks in a row the worker ends itself, since a new worker may succeed. If new
#: workers fail too, the supervisor gives up and says why.
FAILURES_BEFORE_EXIT = 8
# Keys of this module's tasks.
_WARM_UP, _RETURN_MEMORY = object(), object()


class Worker:
    """The work of a stage. A package overrides the methods that it needs.

    All but `warm_up` run in the loop, so none of them may wait.
    """

    def warm_up(self) -> None:
        """Load models. Runs first, in the compute thread. No jobs are taken before it ends."""

    def on_job(self, job: Job) -> None:
        """A job arrived: work to do and later to acknowledge, or a Close."""

    def on_output(self, output: Output) -> None:
        """A task of `stage.compute` made an output."""

    def on_event(self, event: HopEvent) -> None:
        """On `stage.out`, the hop that this stage serves, a worker came or went, or a message is done."""

    def on_confirmed(self, key: ClipKey) -> None:
        """The gateway has all frames of the clip, or does not want them."""

    def on_reset(self, upstream: int) -> None:
        """An upstream has forgotten this worker. The state of its sessions is to be dropped."""

    def on_tick(self) -> None:
        """The loop went round, which happens at least each 0.1 s, or each 1.6 s while there is no work."""

    def busy_for(self) -> float:
        """How long the oldest task outside `stage.compute` has been running, in seconds, or 0."""
        return 0.0

    def info(self) -> dict[str, InfoValue]:
        """Facts for `Status.info`. A change is sent at once."""
        return {}


class Stage:
    """One worker process's sockets and loop, as a context manager.

    A worker uses `jobs`, `out`, `results` and `compute` from the loop's thread, `metrics` from any thread.

    Args:
        name: of the stage.
        settings: of this process.
        takes: name of the hop that feeds it.
        gives: name of the hop that it serves, if any.
        credit: jobs held at once from each upstream. None: that of the settings.
        max_pending_per_session: messages of a session that may wait on the hop that it serves.
        acks_may_wait: for the next heartbeat, as `HopClient` says.
    """

    #: The hop that feeds this stage.
    jobs: HopClient
    #: The hop that this stage serves. A stage that serves none has no such attribute.
    out: HopServer
    #: The way to the gateway.
    results: ResultClient
    #: The thread for long work.
    compute: Compute

    def __init__(
        self,
        name: str,
        settings: Settings,
        *,
        takes: str,
        gives: str | None = None,
        credit: int | None = None,
        max_pending_per_session: int | None = None,
        acks_may_wait: bool = False,
    ) -> None:
        self.name = name
        self.settings = settings
        self.worker = f"{settings.worker_index}-{os.getpid()}"
        self.metrics = Metrics()
        self.warm = False
        self._takes, self._gives = takes, gives
        self._credit = settings.credit if credit is None else credit
        self._max_pending = max_pending_per_session
        self._acks_may_wait = acks_may_wait
        self._stopping = False
        self._stalled = False
        #: Failed tasks since the last task that succeeded.
        self._failures = 0
        self._signals_taken = False
        self._status_at = float("-inf")
        self._return_timer = ReturnTimer()
        self._pace = LoopPace(last_stage=gives is None, dead_after=settings.dead_after)
        self._status: tuple[bool, dict[str, InfoValue]] | None = None
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None

    # ------------------------------------------------------------------ start and end

    def __enter__(self) -> Stage:
        set_up_logging(self.name, str(self.settings.worker_index), self.settings.log_level)
        try:
            self._open()
        except EndpointError as error:
            self._end(2, error)
        return self

    def _open(self) -> None:
        settings = self.settings
        self._context = ctx = zmq.Context()
        # a byte in this pair ends the poll: from the compute thread, or from the interpreter on a signal
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._poller = zmq.Poller()
        self._poller.register(self._woken, zmq.POLLIN)
        self.compute = Compute(self.wake)
        key = settings.hop_key()
        if self._gives is not None:
            self.out = HopServer(
                ctx,
                settings.endpoint(self._gives, settings.worker_index),
                sticky=STICKY[self._gives],
                dead_after=settings.dead_after,
                name=self._gives,
                max_pending_per_session=self._max_pending,
                key=key,
            )
            self._poller.register(self.out.socket, zmq.POLLIN)
        self.jobs = HopClient(
            ctx,
            settings.endpoints(self._takes),
            stage=self.name,
            worker=self.worker,
            credit=self._credit,
            heartbeat_every=HEARTBEAT_AFTER,
            key=key,
            acks_may_wait=self._acks_may_wait,
        )
        self.results = ResultClient(
            ctx, settings.endpoint("results"), stage=self.name, worker=self.worker, key=key
        )
        for sock in (*self.jobs.sockets, self.results.socket):
            self._poller.register(sock, zmq.POLLIN)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if isinstance(error, (SettingsError, EndpointError)):
            self._end(2, error)
        elif isinstance(error, Exception):
            logger.critical("%s ends by an error", self.name, exc_info=error)
            self._end(1)
        elif isinstance(error, SystemExit):
            self._close()
        else:
            self._end(0)

    def _end(self, status: int, error: Exception | None = None) -> None:
        """Close everything and end the process, after `run` without waiting for the interpreter."""
        if error is not None:
            logger.critical("%s cannot work: %s", self.name, error)
        ended = self._close(wait=0.0 if self._signals_taken else 1.0)
        if self._signals_taken or not ended:
            # An interpreter with torch in it takes 0.7 s of processor time to end, and the compute thread may
            # be deep in a library. Nothing depends on either any more.
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
        raise SystemExit(status)

    def _close(self, wait: float = 1.0) -> bool:
        """Say BYE and close everything. Returns False if the compute thread runs for `wait` seconds more."""
        if self._signals_taken:
            signal.set_wakeup_fd(-1)
        for name in ("jobs", "results", "out"):
            if hasattr(self, name):
                getattr(self, name).close()
        if self._context is not None:
            self._context.destroy(linger=200)
        return not hasattr(self, "compute") or self.compute.stop(timeout=wait)

    # ------------------------------------------------------------------ the loop

    def run(self, worker: Worker) -> None:
        """Warm up, then work until a signal says stop. Jobs not acknowledged by then go to others.

        Raises:
            TimeoutError: one task takes far longer than `--stall-after`.
            Exception: whatever the warm-up ended with.
        """
        self.jobs.on_reset = worker.on_reset
        self._take_signals()
        logger.info("%s %s warms up", self.name, self.worker)
        self.compute.start_task(_WARM_UP, worker.warm_up)
        while not self._stopping:
            readable = {sock for sock, _ in self._poller.poll(self._pace.wait_ms)}
            if self._woken.fileno() in readable:
                self._drain_wakes()
            self._run_once(worker, readable)
            tell_alive()
        logger.info("%s %s stops", self.name, self.worker)

    def wake(self) -> None:
        """Make the loop go round now. Any thread may call it."""
        try:
            self._waker.send(b"\0")
        except BlockingIOError:  # it is full, so the loop goes round anyway
            pass

    def fail(self, msg: Work, reason: str, *, fatal: bool = False) -> None:
        """Tell the gateway that the clip of `msg` will not come.

        The `seq` of a Pcm is no clip's, so a Pcm ends its session.
        """
        text = shorten(reason)
        self.results.send(
            Failed(msg.session, msg.epoch, msg.seq, self.name, text, fatal or isinstance(msg, Pcm))
        )

    def _run_once(self, worker: Worker, readable: Container[object]) -> None:
        # Only sockets that have something are read: to ask the others costs more than all else in a round.
        # Outputs and confirmations first: they free credit for new jobs.
        for output in self.compute.take():
            self._pace.note_work()
            if output.key is _WARM_UP:
                self._finish_warm_up(output)
            elif output.key is not _RETURN_MEMORY:
                worker.on_output(output)
                self._count_failures(output)
        if self._gives is not None:
            for event in self.out.tick(readable=self.out.socket in readable):
                worker.on_event(event)
        for key in self.results.confirmed(readable=self.results.socket in readable):
            worker.on_confirmed(key)
        if self.warm:
            self._send_heartbeat(worker)
            for job in self.jobs.recv(readable):
                self._pace.note_work()
                self._hand_over(worker, job)
            if self._return_timer.is_due(time.monotonic()):
                self.compute.start_task(_RETURN_MEMORY, return_freed_memory)
        worker.on_tick()
        if self._has_work():
            self._pace.note_work()
        self._send_status(worker)

    def _has_work(self) -> bool:
        """Whether something is under way, here or in the stage that this one feeds."""
        if not self.warm or self.jobs.held or self.compute.waiting:
            return True
        return self._gives is not None and bool(self.out.pending or self.out.in_flight)

    def _finish_warm_up(self, output: Output) -> None:
        if output.error is not None:
            raise output.error
        self.warm = True
        tell_ready()
        logger.info("%s %s is warm", self.name, self.worker)

    def _count_failures(self, output: Output) -> None:
        """Raises RuntimeError after too many failed tasks in a row. Their clips were reported before."""
        if output.error is None:
            self._failures = 0
            return
        self._failures += 1
        if self._failures >= FAILURES_BEFORE_EXIT:
            kind = type(output.error).__name__
            raise RuntimeError(
                f"the last {self._failures} tasks failed, the last one by {kind}: {output.error}"
            ) from output.error

    def _hand_over(self, worker: Worker, job: Job) -> None:
        """Give the worker a job. An error of one session must not end the worker of the others."""
        try:
            worker.on_job(job)
        except Exception as error:
            logger.exception("a job of session %s failed", job.msg.session)
            self.metrics.count("job_errors_total")
            if not isinstance(job.msg, Close):
                why = f"{type(error).__name__}: {error}"
                self.fail(job.msg, phrase("failed_stage", stage=self.name, why=why))
                self.jobs.ack(job)

    def _send_heartbeat(self, worker: Worker) -> None:
        """Heartbeats stop while a task takes too long, so that its job goes to another worker."""
        busy = max(self.compute.busy_for(), worker.busy_for())
        limit = self.settings.stall_after
        if busy > STALLS_BEFORE_EXIT * limit:
            raise TimeoutError(f"a task has been running for {busy:.0f} s, --stall-after is {limit:g} s")
        if busy <= limit:
            self._stalled = False
            self.jobs.heartbeat(rests=self._pace.resting)
        elif not self._stalled:
            self._stalled = True
            logger.error(
                "a task has been running for %.0f s, longer than --stall-after: no more heartbeats", busy
            )

    def _send_status(self, worker: Worker) -> None:
        now = time.monotonic()
        state = (self.warm, worker.info())
        if state == self._status and now - self._status_at < self._pace.status_every:
            return
        # a copy, since the worker may go on changing its own map
        self._status, self._status_at = (state[0], dict(state[1])), now
        self.metrics.gauge("held_jobs", self.jobs.held)
        self.metrics.gauge("resident_bytes", resident_bytes())
        figures = self.metrics.snapshot(*([self.out.stats] if self._gives is not None else []))
        try:
            self.results.send(Status(self.name, self.worker, self.warm, state[1], figures))
        except ProtocolError as error:
            logger.error("the status cannot be sent: %s", error)

    # ------------------------------------------------------------------ signals and wake-ups

    def _take_signals(self) -> None:
        # on a signal the interpreter writes a byte here, and that ends the poll
        self._signals_taken = True
        signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._stopping = True
        signal.signal(number, signal.SIG_DFL)  # the second one ends the process at once

    def _drain_wakes(self) -> None:
        try:
            while len(self._woken.recv(4096)) == 4096:  # more may wait
                pass
        except BlockingIOError:
            pass


def resident_bytes() -> int:
    """Resident memory of this process, or 0 where the system does not tell it."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
