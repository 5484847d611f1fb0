"""Clips in, latents out: the GPU worker's answer to each message. The models belong to its engine."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial

from gpu_worker.engine_api import ClipError, ClipOutcome, DeviceLost, Engine
from gpu_worker.pauses import (
    READY_FOR_NEED_AFTER,
    READY_TO_FALL_AFTER,
    RETRY_RATE_AFTER,
    RETRY_RATE_AGAIN,
    TIME_LOWEST_AFTER,
    TIME_LOWEST_AT_REST,
    WARM_CACHES_AFTER,
    PauseTask,
)
from gpu_worker.prefetch import ClipUnderway, Prefetch
from gpu_worker.quality.runner import QualityRunner
from gpu_worker.rate.grades import Grade
from gpu_worker.rate.kept_rate import KeptRate
from gpu_worker.rate.runner import TrialRunner
from gpu_worker.rate.served import ServedRate
from gpu_worker.rate.trial import RateChoice
from protocol.hop.client import Job
from protocol.hop.server import Acked, HopEvent, WorkerJoined, WorkerLost
from protocol.model.own_avatars import OWN_ID
from protocol.process.compute import Output
from protocol.process.ledger import JobLedger
from protocol.process.settings import Settings, SettingsError
from protocol.process.stage import Stage, Worker
from protocol.wire.clock import frames_of_clip
from protocol.wire.limits import MAX_CREDIT
from protocol.wire.messages import FINE_DECODER, Clip, Close, InfoValue, Latents, Work, clip_key

logger = logging.getLogger(__name__)

#: Seconds between two writes of the gauges.
FIGURES_EVERY = 0.5


def credit(settings: Settings) -> int:
    """Clips held at once from one audio worker.

    A clip stays held until an encoder has confirmed its latents. So each session may hold one clip for each
    of the queue's places, and one more.
    """
    return min(MAX_CREDIT, (settings.credit + 1) * settings.most_sessions)


class GpuWorker(Worker):
    """Denoises clips one at a time, sessions in turn.

    A clip is acknowledged when an encoder has acknowledged its latents. A clip that cannot be made is
    answered with Failed and acknowledged, and no other clip is touched by it.

    Args:
        settings: of this worker.
        stage: its sockets, threads and metrics.
        engine: makes latents of clips.

    Raises:
        SettingsError: --worker-index is beyond the devices of --gpu-devices.
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
        self._rate = ServedRate(settings, engine.ready_for, lambda: engine.heads)
        self._prefetch = Prefetch(
            engine, stage.compute, stage.wake, stage.metrics, fit=self._rate.fit, may_join=self._rate.may_join
        )
        self._trials = TrialRunner(engine, settings, f"_rate-{settings.worker_index}", stage.wake)
        #: The decoder that encoders are asked for, "" for their own choice.
        self._decoder = ""
        self._encoders = 0
        self._retries = 0
        self._retried_at = float("-inf")
        self._lowest_timed = True
        #: When a silent clip was given again.
        self._rested_at = float("-inf")
        self._need_met = settings.passthrough
        #: Lower rates that are still to be made ready, from the highest.
        self._to_fall_to: list[int] = []
        self._ledger = JobLedger(stage.jobs.ack)
        self._pause_task_running = False
        self._caches_cold = True
        self._figures_at = float("-inf")
        self._info: dict[str, InfoValue] = {}
        self._renew_info()

    # ------------------------------------------------------------------ start-up

    def warm_up(self) -> None:
        self._engine.load()
        if not self._settings.passthrough:
            kept = KeptRate(self._settings)
            rate = self._pick_quality() or self._find_rate(kept)
            self._serve_rate(rate)
            if rate is not None:
                kept.store(rate)
            self._to_fall_to = list(self._rate.rates_to_fall_to(self._engine.device_type))
        # The pause counts from here, since a first session may come at once.
        self._prefetch.last_clip = time.monotonic()

    def _pick_quality(self) -> RateChoice | None:
        """The rate that --quality auto finds on a GPU with all that goes with it, or None."""
        quality = QualityRunner(self._engine, self._settings, self._trials)
        settings, rate = quality.run()
        if rate is not None:
            self._settings, self._decoder = settings, quality.decoder
            self._rate.adopt(settings, rate.fps)
        return rate

    def _find_rate(self, kept: KeptRate) -> RateChoice | None:
        # Beside the start of the other stages, because later it would keep a session waiting.
        for fps in self._rate.rates_to_ready(self._engine.device_type):
            self._engine.make_ready_for(fps)
        self._lowest_timed = False
        if (rate := kept.load()) is None:
            return self._trials.run(favour=True)
        self._engine.clip_frames = rate.clip_frames
        self._engine.favour(rate.fps)
        return rate

    def _serve_rate(self, rate: RateChoice | None) -> None:
        if rate is None:  # nothing aborts a trial at the start
            return
        self._rate.serve(rate, self._engine.device_type)
        # Where sessions may get either size, the lowest rate has this one.
        self._trials.fine = self._engine.heads[-1]
        self._engine.clip_frames = rate.clip_frames
        level = logging.WARNING if rate.notice else logging.INFO
        why = rate.notice or f"making a clip takes {rate.clip_seconds:.2f} s"
        frames = frames_of_clip(rate.fps, rate.clip_frames)
        shape = f"{Grade(rate.fps, rate.fine)}, clips of {frames} frames"
        logger.log(level, "new sessions get %s: %s", shape, why)
        self._renew_info()
        logger.info("sessions at once: %s", self._info.get("sessions", "not measured"))

    def _renew_info(self) -> None:
        self._info = {**self._engine.info(), **self._rate.info()}
        if self._rate.fine:
            for side in ("width", "height"):
                pixels = self._info[side]
                assert isinstance(pixels, int)
                self._info[side] = 2 * pixels

    def info(self) -> dict[str, InfoValue]:
        return self._info

    # ------------------------------------------------------------------ clips in

    def on_job(self, job: Job) -> None:
        if isinstance(job.msg, Close):
            self._close(job.msg)
        elif isinstance(job.msg, Clip):
            self._accept(job, job.msg)
        else:
            logger.error("skipped a message of kind %s: this stage takes clips", type(job.msg).__name__)
            self._stage.jobs.ack(job)

    def _accept(self, job: Job, clip: Clip) -> None:
        if not self._ledger.enter(job, clip):
            return
        self._stage.metrics.count("clips_received_total")
        if clip.silent and self._rest(clip):
            return
        self._rate.take_clip(clip, time.monotonic())
        if self._pause_task_running:
            self._trials.abort()
        for dropped in self._prefetch.enqueue(clip):
            if not self._prefetch.is_stale(dropped.session, dropped.epoch):
                self._report_overload(dropped, "the denoiser")
            self._release(dropped)
        self._advance()

    def _rest(self, clip: Clip) -> bool:
        """Answers a silent clip with latents that were made before, at once and without the device.

        It says nothing about the machine's speed, so the rate does not learn of it.
        """
        if self._prefetch.is_stale(clip.session, clip.epoch):
            return False
        clip = self._rate.thin(clip)
        latents = self._engine.rest(clip)
        if latents is None:
            return False
        for superseded in self._prefetch.begin_epoch(clip):
            self._release(superseded)
        self._rested_at = time.monotonic()
        self._stage.metrics.count("clips_at_rest_total")
        self._conclude(ClipOutcome(clip, latents, None))
        return True

    def _close(self, close: Close) -> None:
        self._prefetch.close(close.session, close.epoch)
        self._stage.out.broadcast(close)
        self._ledger.settle_session(close.session, close.epoch)

    def on_reset(self, upstream: int) -> None:
        """Drops the upstream's waiting clips: it gives them to other workers or sends them again.

        The last latents of sessions are kept. They belong to (session, epoch, seq), so they are right for a
        clip that comes back.
        """
        self._ledger.void(upstream)
        for session in self._prefetch.waiting_sessions():
            for clip in self._prefetch.take_back(session):
                if clip_key(clip) in self._ledger:
                    self._prefetch.enqueue(clip)

    # ------------------------------------------------------------------ latents out

    def on_output(self, output: Output) -> None:
        if isinstance(output.key, ClipUnderway):
            for outcome in self._prefetch.outcomes_of(output):
                self._caches_cold |= outcome.clip.silent  # a pause is to keep its loop
                self._conclude(outcome)
        else:
            self._end_pause_task(output)
        self._advance()

    def _advance(self) -> None:
        for outcome in self._prefetch.advance():
            self._conclude(outcome)

    def _conclude(self, outcome: ClipOutcome) -> None:
        """Sends the clip's latents to the encoders, or tells its session why there are none."""
        clip = outcome.clip
        if isinstance(outcome.error, DeviceLost):
            raise outcome.error  # ends the process, and the launcher starts a new one
        if clip_key(clip) not in self._ledger:
            return
        if self._prefetch.is_stale(clip.session, clip.epoch):
            self._release(clip)
        elif outcome.error is not None:
            self._fail(clip, outcome.error)
        elif outcome.latents is not None:
            self._stage.metrics.count("clips_total")
            self._stage.metrics.observe_clip(time.monotonic() - self._ledger.received_at(clip_key(clip)))
            latents = Latents(
                clip.session,
                clip.epoch,
                clip.seq,
                clip.pts,
                clip.fps,
                outcome.latents,
                clip.codec,
                FINE_DECODER if self._rate.fine else self._decoder,
                clip.silent,
                OWN_ID.fullmatch(clip.avatar) is not None,
            )
            for dropped in self._stage.out.dispatch(latents):
                self._report_overload(dropped, "the encoders")
                self._release(dropped)

    def on_event(self, event: HopEvent) -> None:
        if isinstance(event, WorkerLost):
            self._encoders -= 1
        elif isinstance(event, WorkerJoined):
            self._encoders += 1
            self._trials.encoder_joined.set()
        elif isinstance(event, Acked) and isinstance(event.msg, Latents):
            if event.msg.session == self._trials.session:
                self._trials.confirm(event.msg)
            self._rate.confirm(event.msg, time.monotonic())
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

    def _report_overload(self, dropped: Work, who: str) -> None:
        self._stage.metrics.count("clips_dropped_total")
        logger.warning("session %s: clip %d is dropped, %s cannot keep up", dropped.session, dropped.seq, who)
        self._stage.fail(dropped, f"overload: {who} cannot keep up, a clip was left out")

    def _release(self, msg: Work) -> None:
        self._ledger.settle(clip_key(msg))

    # ------------------------------------------------------------------ in the pauses

    def on_tick(self) -> None:
        self._engine.check()
        self._advance()
        while self._trials.outbox:
            self._stage.out.dispatch(self._trials.outbox.popleft())
        now = time.monotonic()
        if self._rate.update(now, self._ledger.__contains__, self._encoders):
            self._renew_info()
        if self._stage.warm and not self._pause_task_running and self._prefetch.idle:
            self._use_pause(now - self._prefetch.last_clip)
        if now - self._figures_at >= FIGURES_EVERY:
            self._figures_at = now
            self._write_figures()
            if self._rate.count_sessions(now):
                self._renew_info()

    def _use_pause(self, quiet: float) -> None:
        """Starts a task that is due after `quiet` seconds without a clip."""
        if self._caches_cold and quiet > WARM_CACHES_AFTER:
            self._start(PauseTask.WARM_CACHES, self._engine.work_in_pause)
        elif not self._lowest_timed and quiet > self._time_lowest_after:
            self._lowest_timed = True
            self._trials.rearm()
            self._start(PauseTask.TIME_LOWEST, partial(self._trials.time_rate, self._rate.lowest))
        elif self._to_fall_to and quiet > READY_TO_FALL_AFTER:
            lower = self._to_fall_to.pop(0)
            self._start(PauseTask.READY_TO_FALL, partial(self._engine.make_ready_for, lower))
        elif self._may_retry_rate(quiet):
            self._retries += 1
            self._retried_at = time.monotonic()
            self._trials.rearm()
            self._start(PauseTask.RETRY_RATE, self._trials.run)
        elif not self._need_met and (fps := self._rate.rate_for_need) and quiet > READY_FOR_NEED_AFTER:
            self._need_met = True
            self._start(PauseTask.READY_FOR_NEED, partial(self._engine.make_ready_for, fps))

    @property
    def _time_lowest_after(self) -> float:
        rests = time.monotonic() - self._rested_at < TIME_LOWEST_AFTER
        return TIME_LOWEST_AT_REST if rests else TIME_LOWEST_AFTER

    def _start(self, task: PauseTask, work: Callable[[], object]) -> None:
        self._pause_task_running = True
        self._stage.compute.start_task(task, work)

    def _may_retry_rate(self, quiet: float) -> bool:
        return (
            (self._rate.fell or self._rate.choice.clip_frames > self._engine.clip_lengths[0])
            and self._settings.fps is None
            and quiet > RETRY_RATE_AFTER[min(self._retries, len(RETRY_RATE_AFTER) - 1)]
            and time.monotonic() - self._retried_at > self._retry_wait
        )

    @property
    def _retry_wait(self) -> float:
        """Seconds from the last trial in a pause to the next one, at least."""
        more = self._retries - len(RETRY_RATE_AFTER)
        return RETRY_RATE_AGAIN * 2**more if more >= 0 else 0.0

    def _end_pause_task(self, output: Output) -> None:
        assert isinstance(output.key, PauseTask)
        self._pause_task_running = False
        if output.key is PauseTask.WARM_CACHES:
            self._caches_cold = bool(output.value)  # after an error the rest is made at first use
        if output.error is not None:
            logger.error("%s failed; sessions are served without it", output.key.value, exc_info=output.error)
        elif output.key is PauseTask.TIME_LOWEST:
            self._lowest_timed = isinstance(output.value, RateChoice)  # else a clip came, and it is due again
            if isinstance(output.value, RateChoice):
                self._rate.take_lowest(output.value)
        elif isinstance(output.value, RateChoice) and self._rate.is_better(output.value):
            self._serve_rate(output.value)
            self._start(PauseTask.FAVOUR, partial(self._engine.favour, output.value.fps))

    def _write_figures(self) -> None:
        figures = self._prefetch.figures() | self._engine.metrics() | self._rate.figures()
        for name, value in figures.items():
            self._stage.metrics.gauge(name, value)

    def stop(self) -> None:
        """Ends the prefetch thread. The stage ends its own."""
        self._prefetch.stop(timeout=0.5)
