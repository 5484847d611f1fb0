"""Clips in, latents out: what the GPU worker does with each message. The models are its engine's affair."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from gpu_worker.engine_api import ClipError, DeviceLost, Done, Engine
from gpu_worker.prefetch import Prefetch, Task
from gpu_worker.rate.pace import Pace
from gpu_worker.rate.trial import Trial
from protocol.hop.client import Job
from protocol.hop.server import Acked, Event, WorkerJoined
from protocol.process.compute import Output
from protocol.process.settings import Settings, SettingsError
from protocol.process.stage import Stage, Worker
from protocol.wire.clock import FULL_RATE
from protocol.wire.limits import CREDIT
from protocol.wire.messages import Clip, Close, InfoValue, Latents, Work

logger = logging.getLogger(__name__)

Key = tuple[str, int, int]  # session, epoch, seq

FIGURES_EVERY = 0.5
BACKGROUND_AFTER = 3.0
"""Seconds without a clip before background work begins: between a session's clips it would delay them."""

RETRY_PACE_AFTER = (10.0, 60.0)
"""Seconds without a clip after which a rate that fell is tried again: other stages may have been starting."""


def credit(settings: Settings) -> int:
    """Clips held at once from one audio worker: one in each of the queue's places more than a hop's credit,
    for each session, since a clip stays held until an encoder has dealt with its latents."""
    return min(CREDIT, (settings.credit + 1) * settings.max_sessions)


@dataclass(frozen=True, slots=True)
class _Background:
    """Key of a piece of background work."""


@dataclass(frozen=True, slots=True)
class _Retry:
    """Key of a rate trial after the first."""


class GpuWorker(Worker):
    """Denoises clips one at a time, sessions in turn; a clip is acknowledged when its latents have been.

    A clip that can't be made is answered with Failed and acknowledged; nothing else is touched by it.
    """

    def __init__(self, settings: Settings, stage: Stage, engine: Engine) -> None:
        devices = len(settings.gpu_devices)
        if settings.worker_index >= devices:
            raise SettingsError(
                f"--worker-index {settings.worker_index}: --gpu-devices names {devices}, so the last is"
                f" {devices - 1}; name another device or choose a smaller index"
            )
        self._settings = settings
        self._stage = stage
        self._engine = engine
        self._prefetch = Prefetch(engine, stage.compute, stage.wake, stage.metrics)
        self._trial = Trial(engine, settings, f"_pace-{settings.worker_index}", stage.wake)
        self._pace = Pace(settings.fps or FULL_RATE, 0.0, "")
        self._retries = 0
        self._held: dict[Key, list[Job]] = {}
        self._extra_running = False
        self._background_left = True
        self._figures_at = float("-inf")
        self._info: dict[str, InfoValue] = {}
        self._renew_info()

    # ------------------------------------------------------------------ start-up

    def warm_up(self) -> None:
        self._engine.load()
        pace = None if self._settings.passthrough else self._trial.run()
        if pace is not None:
            self._take_pace(pace)
        self._prefetch.last_clip = time.monotonic()  # a first session may come at once: no pause work yet

    def _take_pace(self, pace: Pace) -> None:
        self._pace = pace
        level = logging.WARNING if pace.notice else logging.INFO
        why = pace.notice or f"making a clip takes {pace.clip_seconds:.2f} s"
        logger.log(level, "new sessions get %d fps: %s", pace.fps, why)
        self._renew_info()

    def _renew_info(self) -> None:
        self._info = {**self._engine.info(), "fps": self._pace.fps, "notice": self._pace.notice}

    def info(self) -> dict[str, InfoValue]:
        return self._info

    # ------------------------------------------------------------------ clips in

    def on_job(self, job: Job) -> None:
        if isinstance(job.msg, Close):
            self._close(job.msg)
        elif isinstance(job.msg, Clip):
            self._take(job, job.msg)
        else:
            logger.error("a %s is no clip and is skipped", type(job.msg).__name__)
            self._stage.jobs.ack(job)

    def _take(self, job: Job, clip: Clip) -> None:
        key = _key(clip)
        if key in self._held:  # sent again after the upstream lost sight of this worker: it is on its way
            self._held[key].append(job)
            return
        self._held[key] = [job]
        self._stage.metrics.count("clips_received_total")
        if self._extra_running:
            self._trial.abort()
        for gone in self._prefetch.submit(clip):
            if not self._prefetch.is_stale(gone.session, gone.epoch):
                self._overloaded(gone, "the denoiser")
            self._release(gone)
        self._move()

    def _close(self, close: Close) -> None:
        self._prefetch.close(close.session, close.epoch)
        self._stage.out.broadcast(close)
        for key in [k for k in self._held if k[0] == close.session and k[1] <= close.epoch]:
            self._release_key(key)

    def on_reset(self, upstream: int) -> None:
        """The upstream gives its clips to others or sends them again: those that wait here are not made.

        What sessions carry from clip to clip is kept. It belongs to (session, epoch, seq), so it can't be
        wrong for a clip that comes back.
        """
        for key, jobs in list(self._held.items()):
            kept = [job for job in jobs if job.token.upstream != upstream]
            if kept:
                self._held[key] = kept
            else:
                del self._held[key]
        for session in self._prefetch.waiting_sessions():
            for clip in self._prefetch.drop(session):
                if _key(clip) in self._held:
                    self._prefetch.submit(clip)

    # ------------------------------------------------------------------ latents out

    def on_output(self, output: Output) -> None:
        if isinstance(output.key, Task):
            self._end(self._prefetch.finished(output))
        else:
            self._extra_done(output)
        self._move()

    def _move(self) -> None:
        for done in self._prefetch.step():
            self._end(done)

    def _end(self, done: Done) -> None:
        clip = done.clip
        if isinstance(done.error, DeviceLost):
            raise done.error
        if _key(clip) not in self._held:
            return
        if self._prefetch.is_stale(clip.session, clip.epoch):
            self._release(clip)
        elif done.error is not None:
            self._fail(clip, done.error)
        elif done.latents is not None:
            self._stage.metrics.count("clips_total")
            self._stage.metrics.observe_clip(time.monotonic() - self._held[_key(clip)][0].received_at)
            latents = Latents(clip.session, clip.epoch, clip.seq, clip.pts, clip.fps, done.latents)
            for gone in self._stage.out.submit(latents):
                self._overloaded(gone, "the encoders")
                self._release(gone)

    def on_event(self, event: Event) -> None:
        if isinstance(event, WorkerJoined):
            self._trial.encoder_there.set()
        elif isinstance(event, Acked) and isinstance(event.msg, Latents):
            if event.msg.session == self._trial.session:
                self._trial.acked(event.msg)
            self._release(event.msg)

    def _fail(self, clip: Clip, error: Exception) -> None:
        self._stage.metrics.count("clips_failed_total")
        fatal = isinstance(error, ClipError) and error.fatal
        if isinstance(error, ClipError):
            logger.warning("session %s clip %d: %s", clip.session, clip.seq, error)
            reason = str(error)
        else:
            logger.error("session %s clip %d failed", clip.session, clip.seq, exc_info=error)
            reason = f"the clip could not be made: {type(error).__name__}: {error}"
        self._stage.fail(clip, reason, fatal=fatal)
        self._release(clip)

    def _overloaded(self, msg: Work, who: str) -> None:
        self._stage.metrics.count("clips_dropped_total")
        logger.warning("session %s: clip %d is dropped, %s can't keep up", msg.session, msg.seq, who)
        self._stage.fail(msg, f"overload: {who} can't keep up, a clip was left out")

    def _release(self, msg: Work) -> None:
        self._release_key((msg.session, msg.epoch, msg.seq))

    def _release_key(self, key: Key) -> None:
        for job in self._held.pop(key, []):
            self._stage.jobs.ack(job)

    # ------------------------------------------------------------------ in the pauses

    def on_tick(self) -> None:
        self._move()
        while self._trial.outbox:
            self._stage.out.submit(self._trial.outbox.popleft())
        now = time.monotonic()
        if self._stage.warm and not self._extra_running and self._prefetch.idle:
            self._use_pause(now - self._prefetch.last_clip)
        if now - self._figures_at >= FIGURES_EVERY:
            self._figures_at = now
            self._write_figures()

    def _use_pause(self, quiet: float) -> None:
        fell = self._pace.notice and self._settings.fps is None
        if self._background_left and quiet > BACKGROUND_AFTER:
            self._extra_running = True
            self._stage.compute.submit(_Background(), self._engine.background)
        elif fell and self._retries < len(RETRY_PACE_AFTER) and quiet > RETRY_PACE_AFTER[self._retries]:
            self._retries += 1
            self._extra_running = True
            self._trial.rearm()
            self._stage.compute.submit(_Retry(), self._trial.run)

    def _extra_done(self, output: Output) -> None:
        self._extra_running = False
        if isinstance(output.key, _Background):
            self._background_left = bool(output.value)
        if output.error is not None:
            text = "what it would have made ready is made at first use"
            logger.error("work in a pause failed; %s", text, exc_info=output.error)
        elif isinstance(output.value, Pace) and output.value.fps > self._pace.fps:
            self._take_pace(output.value)

    def _write_figures(self) -> None:
        figures = self._prefetch.figures() | self._engine.metrics()
        figures["trial_clip_seconds"] = self._pace.clip_seconds
        for name, value in figures.items():
            self._stage.metrics.gauge(name, value)

    def stop(self) -> None:
        """Ends the prefetch thread; the stage ends its own."""
        self._prefetch.stop(timeout=0.5)


def _key(clip: Clip) -> Key:
    return clip.session, clip.epoch, clip.seq
