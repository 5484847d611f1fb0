"""While one clip is denoised, the next one's inputs are prepared.

    enqueue ─▶ FairQueue ─▶ prefetch thread: engine.prepare ─▶ compute thread: engine.denoise ─▶ ClipOutcome

The loop's thread only moves clips along, so sockets and heartbeats never wait. At most `MAX_UNDERWAY` clips
are between the queue and their outcome, because a clip that has left the queue can neither be overtaken nor
pushed out. While none waits, the prefetch thread works ahead for the clips that will follow, piece by piece.
"""

from __future__ import annotations

import logging
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from gpu_worker.engine_api import ClipOutcome, DeviceLost, Engine
from gpu_worker.fair_queue import FairQueue
from gpu_worker.rate.joining import join_clips, split_latents
from gpu_worker.sessions import EpochFloor
from protocol.process.compute import Compute, Output
from protocol.process.logs import first_line
from protocol.process.metrics import Metrics
from protocol.wire.clock import FULL_RATE, USUAL_CLIP_FRAMES
from protocol.wire.messages import Array16, Clip, ClipKey, clip_key

logger = logging.getLogger(__name__)

#: Clips out of the queue at a time: one is denoised while the next is prepared.
MAX_UNDERWAY = 2

#: Clips that a session may have waiting, a second of speech. A newer one pushes out the oldest.
QUEUE_DEPTH = 2

#: Sessions whose next clips are made ready for ahead.
MOST_AHEAD = 16

#: Key of that work in the prefetch thread.
AHEAD = "ahead"

#: Seconds over which the device's idle share is taken.
IDLE_WINDOW = 10.0


@dataclass(slots=True, eq=False)
class ClipUnderway:
    """A clip between the queue and its outcome. The threads return their outputs under it as their key.

    Attributes:
        clip: the clip that is made.
        parts: the clips of the session that it was joined of, at least one.
        device_idle: whether no other clip was underway or on the device when this one left the queue.
        inputs: the result of `engine.prepare`, until `engine.denoise` takes it.
    """

    clip: Clip
    parts: Sequence[Clip]
    device_idle: bool
    inputs: Any = None


class Prefetch:
    """Feeds the compute thread with prepared clips, in turn between sessions.

    All methods belong to the loop's thread.

    Args:
        engine: prepares and denoises.
        compute: the thread that has the device.
        wake: makes the loop call `advance` soon. It is called from other threads.
        metrics: of this stage.
        fit: gives what is made of the clips that leave the queue: the same with fewer frames, perhaps.
        may_join: whether a clip that waits may be made together with these ones of its session.
        depth: clips of half a second that a session may have waiting. There may be more shorter ones.
        clock: seconds, for the metrics.
    """

    #: When the last clip was enqueued, on `clock`.
    last_clip: float

    def __init__(
        self,
        engine: Engine,
        compute: Compute,
        wake: Callable[[], None],
        metrics: Metrics,
        *,
        fit: Callable[[Sequence[Clip]], Sequence[Clip]] = lambda clips: clips,
        may_join: Callable[[Sequence[Clip], Clip], bool] = lambda clips, clip: False,
        depth: int = QUEUE_DEPTH,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._compute = compute
        self._metrics = metrics
        self._fit = fit
        self._may_join = may_join
        #: Clips that failed together with others, and are to be made alone.
        self._apart: set[ClipKey] = set()
        self._clock = clock
        self._depth = depth
        self._queue = FairQueue[Clip](depth)
        self._floor = EpochFloor()
        self._preparing = Compute(wake)
        #: The latest clip of each session, while the one after it may need something that takes long to make.
        self._followed: OrderedDict[str, Clip] = OrderedDict()
        self._underway = 0
        self._busy = 0.0
        #: (time, busy seconds until then) over the last `IDLE_WINDOW`.
        self._busy_samples: deque[tuple[float, float]] = deque()
        self._overlap_logged = False
        self.last_clip = clock()

    # ------------------------------------------------------------------ the queue

    def enqueue(self, clip: Clip) -> list[Clip]:
        """Queues the clip.

        Returns:
            The clips that will not be made: those pushed out and those of older epochs. `clip` itself is
            among them where its epoch is stale or the queue is full of newer ones.
        """
        self.last_clip = self._clock()
        if self._floor.is_stale(clip.session, clip.epoch):
            return [clip]
        superseded = self.begin_epoch(clip)
        # As much speech as two clips of the usual length, so a short halt costs short clips no frames either.
        depth = self._depth * USUAL_CLIP_FRAMES * clip.fps // (FULL_RATE * len(clip.tokens))
        return superseded + self._queue.put(clip.session, (clip.epoch, clip.seq), clip, depth)

    def begin_epoch(self, clip: Clip) -> list[Clip]:
        """Takes the session's clips of older epochs than this clip's out of the queue and returns them."""
        self._floor.raise_to(clip.session, clip.epoch)
        return self._queue.remove(clip.session, clip.epoch - 1)

    def take_back(self, session: str) -> list[Clip]:
        """Takes all of the session's clips out of the queue and returns them."""
        return self._queue.remove(session, 2**63)

    def close(self, session: str, epoch: int) -> None:
        """Drops the session's clips up to and including `epoch`, and those that come later too."""
        self._floor.raise_to(session, epoch + 1)
        self._engine.close(session, epoch)
        self._followed.pop(session, None)
        self._queue.remove(session, epoch)

    def is_stale(self, session: str, epoch: int) -> bool:
        """Whether the session has been closed, or has a later epoch."""
        return self._floor.is_stale(session, epoch)

    def waiting_sessions(self) -> list[str]:
        """The sessions that have clips in the queue."""
        return self._queue.sessions()

    @property
    def idle(self) -> bool:
        """Whether no clip is queued, prepared or denoised."""
        return self._underway == 0 and len(self._queue) == 0

    @property
    def busy_ahead(self) -> bool:
        """Whether something is made ready for clips that have not come yet."""
        return bool(self._followed or self._preparing.waiting)

    # ------------------------------------------------------------------ through the threads

    def advance(self) -> list[ClipOutcome]:
        """Moves clips along: prepared ones to the compute thread, queued ones to the prefetch thread.

        Returns:
            The outcomes of clips that end here: those that could not be prepared and those whose session is
            gone.
        """
        ended: list[ClipOutcome] = []
        for output in self._preparing.take():
            if output.key == AHEAD:
                self._end_ahead(output)
                continue
            underway = self._of(output)
            clip = underway.clip
            if output.error is not None or self.is_stale(clip.session, clip.epoch):
                ended += self._ended(underway, None, output.error)
                continue
            self._count_overlap(underway)
            underway.inputs = output.value
            self._followed.pop(clip.session, None)
            self._followed[clip.session] = clip
            if len(self._followed) > MOST_AHEAD:
                self._followed.popitem(last=False)
            self._compute.start_task(underway, self._denoise, underway)
        while self._underway < MAX_UNDERWAY and (queued := self._queue.pop()) is not None:
            self._underway += 1
            parts = self._fit(self._with_those_that_join(queued))
            clip = join_clips(parts)
            underway = ClipUnderway(clip, parts, self._underway == 1 and self._compute.waiting == 0)
            self._preparing.start_task(underway, self._prepare, clip)
        if self._followed and not self._preparing.waiting:
            self._preparing.start_task(AHEAD, self._prepare_ahead, next(iter(self._followed.values())))
        return ended

    def _prepare_ahead(self, clip: Clip) -> Clip | None:
        """Runs in the prefetch thread. Returns the clip once nothing is left to do for the one after it."""
        return None if self._engine.prepare_ahead(clip) else clip

    def _end_ahead(self, output: Output) -> None:
        if output.error is not None:  # the clip that needs it says so to its session
            logger.warning("nothing is made ready ahead: %s", first_line(output.error))
            self._followed.clear()
        elif isinstance(output.value, Clip) and self._followed.get(output.value.session) is output.value:
            del self._followed[output.value.session]

    def _with_those_that_join(self, clip: Clip) -> list[Clip]:
        """The clip and those behind it that are made with it. They leave the queue."""
        parts, alone = [clip], clip_key(clip) in self._apart
        self._apart.discard(clip_key(clip))
        while not alone and (following := self._queue.next_of(clip.session)) is not None:
            if clip_key(following) in self._apart or not self._may_join(parts, following):
                break
            parts.append(self._queue.take_next(clip.session))
        self._metrics.count("clips_joined_total", by=len(parts) - 1)
        return parts

    def outcomes_of(self, output: Output) -> list[ClipOutcome]:
        """The outcomes of the clips that the compute thread has returned."""
        return self._ended(self._of(output), output.value, output.error)

    def _ended(
        self, underway: ClipUnderway, latents: Array16 | None, error: Exception | None
    ) -> list[ClipOutcome]:
        self._underway -= 1
        parts = underway.parts
        if error is not None and not isinstance(error, DeviceLost) and len(parts) > 1:
            # One of them is to blame, and the others must not suffer: each is made alone.
            for part in parts:
                self._apart.add(clip_key(part))
                self._queue.put(part.session, (part.epoch, part.seq), part, len(self._queue) + len(parts))
            return []
        if latents is None:
            return [ClipOutcome(part, None, error) for part in parts]
        split = split_latents(latents, parts)
        return [ClipOutcome(part, made, None) for part, made in zip(parts, split, strict=True)]

    def stop(self, timeout: float) -> bool:
        """Ends the prefetch thread. False: it is still busy after `timeout` seconds."""
        return self._preparing.stop(timeout)

    @staticmethod
    def _of(output: Output) -> ClipUnderway:
        assert isinstance(output.key, ClipUnderway)
        return output.key

    def _prepare(self, clip: Clip) -> Any:
        with self._metrics.time("prepare_seconds"):
            return self._engine.prepare(clip)

    def _denoise(self, underway: ClipUnderway) -> Array16:
        # Taken out of the clip, so that their memory is free as soon as the engine is through with them.
        inputs, underway.inputs = underway.inputs, None
        begin = self._clock()
        try:
            latents = self._engine.denoise(inputs)
            if len(underway.parts) > 1:
                self._engine.reached(underway.clip, underway.parts[-1].seq)
        finally:
            seconds = self._clock() - begin
            self._busy += seconds
        self._metrics.observe("denoise_seconds", seconds)
        return latents

    # ------------------------------------------------------------------ figures

    def _count_overlap(self, underway: ClipUnderway) -> None:
        """Counts whether the inputs were ready in time.

        A hit: they were ready before the device was free. A miss: the device waited for them. Cold: the
        device had nothing to do when the clip came.
        """
        if self._compute.waiting == 0:
            self._metrics.count("prefetch_cold_total" if underway.device_idle else "prefetch_misses_total")
            return
        self._metrics.count("prefetch_hits_total")
        if not self._overlap_logged:
            self._overlap_logged = True
            logger.info(
                "prefetch begins: inputs of clip %d of session %s are ready while another is denoised",
                underway.clip.seq,
                underway.clip.session,
            )

    def figures(self) -> dict[str, float]:
        """Queue depth, the device's busy seconds, and its idle share of the last `IDLE_WINDOW` seconds."""
        now = self._clock()
        busy = self._busy + self._compute.busy_for()
        self._busy_samples.append((now, busy))
        while len(self._busy_samples) > 2 and now - self._busy_samples[0][0] > IDLE_WINDOW:
            self._busy_samples.popleft()
        began, busy_then = self._busy_samples[0]
        idle = 1.0 - (busy - busy_then) / (now - began) if now > began else 1.0
        return {
            "queue_depth": float(len(self._queue)),
            "device_busy_seconds_total": busy,
            "device_idle_ratio": min(max(idle, 0.0), 1.0),
        }
