"""A stage without sockets: the worker's own code and threads, and nobody at the other ends."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, cast

from protocol.hop.client import Job, JobOrigin
from protocol.process.compute import Compute, Output
from protocol.process.metrics import Metrics
from protocol.process.stage import Stage, Worker
from protocol.wire.messages import ClipKey, Close, Message, Work

#: Seconds for a task, a start that converts networks among them.
PATIENCE = 300.0


class Nobody:
    """The other end of every hop: takes all that is sent, and forgets it."""

    def ack(self, job: Job) -> None:
        """A job is done."""

    def send(self, message: Message) -> None:
        """A result."""

    def forget(self, *key: object) -> None:
        """A result that is not to be sent."""

    def broadcast(self, message: Close) -> None:
        """A session's end."""

    def dispatch(self, message: Work) -> list[Work]:
        """A job for the next stage. None is pushed out."""
        return []


class StandInStage:
    """The part of `Stage` that the workers use."""

    def __init__(self) -> None:
        self._woken = threading.Event()
        self.jobs = self.out = self.results = Nobody()
        self.metrics = Metrics()
        self.compute = Compute(self._woken.set)
        self.warm = True

    def as_stage(self) -> Stage:
        """Itself, as the workers know it."""
        return cast(Stage, self)

    def fail(self, message: Work, reason: str, *, fatal: bool = False) -> None:
        """A clip that cannot be made ends the measurement."""
        raise RuntimeError(f"clip {message.seq} of session {message.session}: {reason}")

    def warm_up(self, worker: Worker) -> None:
        """The worker's start. Raises whatever it raises."""
        self.compute.start_task("warm-up", worker.warm_up)
        for output in self.outputs():
            if output.error is not None:
                raise output.error

    def outputs(self) -> Iterator[Output]:
        """The outputs of the tasks that were started, until all have ended."""
        while self.compute.waiting:
            if not self._woken.wait(PATIENCE):
                raise TimeoutError(f"a task takes longer than {PATIENCE:g} s")
            self._woken.clear()
            yield from self.compute.take()


def job_of(message: Any, number: int) -> Job:
    """The job that a hop would make of a message."""
    return Job(message, JobOrigin(0, 0, number))


def key_of(session: str, seq: int) -> ClipKey:
    """The key of a clip of a session's first epoch."""
    return session, 0, seq
