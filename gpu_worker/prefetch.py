"""While one clip is denoised, the next one's inputs are prepared.

    submit ─▶ FairQueue ─▶ prefetch thread: engine.prepare ─▶ compute thread: engine.denoise ─▶ Done

The loop's thread only moves clips along, so sockets and heartbeats never wait. No more than `AHEAD` clips
are out of the queue at a time: those have left its order and its bound.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gpu_worker.engine_api import Done, Engine
from gpu_worker.fair_queue import FairQueue
from gpu_worker.sessions import EpochFloor
from protocol.process.compute import Compute, Output
from protocol.process.metrics import Metrics
from protocol.wire.messages import Clip

logger = logging.getLogger(__name__)

AHEAD = 2
"""One being denoised and one prepared."""

QUEUE_DEPTH = 2
"""Clips a session may have waiting: a second of speech. Older ones are given up."""

IDLE_WINDOW = 10.0


@dataclass(slots=True, eq=False)
class Task:
    """A clip on its way; the key under which threads return what became of it."""

    clip: Clip
    first: bool  # nothing else was on its way or on the device
    inputs: Any = None


class Prefetch:
    """Feeds `compute` with prepared clips, in turn between sessions. Used from the loop's thread alone.

    Args:
        compute: whose thread has the device.
        wake: makes the loop call `step` soon; used from other threads.
    """

    def __init__(
        self,
        engine: Engine,
        compute: Compute,
        wake: Callable[[], None],
        metrics: Metrics,
        *,
        depth: int = QUEUE_DEPTH,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._compute = compute
        self._metrics = metrics
        self._clock = clock
        self._queue = FairQueue[Clip](depth)
        self._floor = EpochFloor()
        self._preparing = Compute(wake)
        self._out = 0
        self._busy = 0.0
        self._samples: deque[tuple[float, float]] = deque()
        self._said = False
        self.last_clip = clock()

    def submit(self, clip: Clip) -> list[Clip]:
        """Queues the clip; returns what will not be made: pushed-out and older-epoch clips, maybe itself."""
        self.last_clip = self._clock()
        if self._floor.is_stale(clip.session, clip.epoch):
            return [clip]
        self._floor.raise_to(clip.session, clip.epoch)
        gone = self._queue.remove(clip.session, clip.epoch - 1)
        return gone + self._queue.put(clip.session, (clip.epoch, clip.seq), clip)

    def drop(self, session: str, epoch: int = 2**63) -> list[Clip]:
        """Takes the session's clips up to `epoch` back out of the queue."""
        return self._queue.remove(session, epoch)

    def close(self, session: str, epoch: int) -> list[Clip]:
        """As `drop`; and what comes of these epochs later is stale."""
        self._floor.raise_to(session, epoch + 1)
        self._engine.close(session, epoch)
        return self._queue.remove(session, epoch)

    def is_stale(self, session: str, epoch: int) -> bool:
        return self._floor.is_stale(session, epoch)

    def waiting_sessions(self) -> list[str]:
        return self._queue.sessions()

    @property
    def idle(self) -> bool:
        """Nothing is queued, prepared or denoised."""
        return self._out == 0 and len(self._queue) == 0

    def step(self) -> list[Done]:
        """Moves clips along; returns those that end here: not preparable, or their session is gone."""
        ended = []
        for output in self._preparing.take():
            task = output.key
            assert isinstance(task, Task)
            if output.error is not None or self.is_stale(task.clip.session, task.clip.epoch):
                self._out -= 1
                ended.append(Done(task.clip, None, output.error))
                continue
            self._count(task)
            task.inputs = output.value
            self._compute.submit(task, self._denoise, task)
        while self._out < AHEAD and (clip := self._queue.pop()) is not None:
            self._out += 1
            task = Task(clip, first=self._out == 1 and self._compute.waiting == 0)
            self._preparing.submit(task, self._prepare, clip)
        return ended

    def finished(self, output: Output) -> Done:
        """What became of a task that `compute` returned."""
        task = output.key
        assert isinstance(task, Task)
        self._out -= 1
        return Done(task.clip, output.value, output.error)

    def stop(self, timeout: float) -> bool:
        return self._preparing.stop(timeout)

    def figures(self) -> dict[str, float]:
        """Queue depth, and the device's busy time and idle share of the last `IDLE_WINDOW` seconds."""
        now = self._clock()
        busy = self._busy + self._compute.busy_for()
        self._samples.append((now, busy))
        while len(self._samples) > 2 and now - self._samples[0][0] > IDLE_WINDOW:
            self._samples.popleft()
        began, busy_then = self._samples[0]
        idle = 1.0 - (busy - busy_then) / (now - began) if now > began else 1.0
        return {
            "queue_depth": float(len(self._queue)),
            "device_busy_seconds_total": busy,
            "device_idle_ratio": min(max(idle, 0.0), 1.0),
        }

    def _count(self, task: Task) -> None:
        """Hit: inputs are ready before the device is free. Miss: it waits for them. Cold: it was idle."""
        if self._compute.waiting > 0:
            self._metrics.count("prefetch_hits_total")
            if not self._said:
                self._said = True
                logger.info(
                    "prefetch begins: inputs of clip %d of session %s are ready while another is denoised",
                    task.clip.seq,
                    task.clip.session,
                )
        else:
            self._metrics.count("prefetch_cold_total" if task.first else "prefetch_misses_total")

    def _prepare(self, clip: Clip) -> Any:
        with self._metrics.time("prepare_seconds"):
            return self._engine.prepare(clip)

    def _denoise(self, task: Task) -> Any:
        inputs, task.inputs = task.inputs, None
        begin = self._clock()
        try:
            latents = self._engine.denoise(inputs)
        finally:
            seconds = self._clock() - begin
            self._busy += seconds
        self._metrics.observe("denoise_seconds", seconds)
        return latents
