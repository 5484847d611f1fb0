"""Carries the rate trial out: denoises its clips in the compute thread, has the encoders decode them."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable

from gpu_worker.engine_api import Engine
from gpu_worker.rate.pace import ALONE, Pace, PaceTrial, given_pace, headroom
from protocol.process.settings import Settings
from protocol.wire.messages import Latents

logger = logging.getLogger(__name__)

ENCODER_WAIT = 20.0
ACK_WAIT = 15.0


class Trial:
    """`run` belongs to the compute thread and waits; everything else is for the loop's thread.

    Args:
        wake: makes the loop take from `outbox`.
        session: under which the latents travel; no gateway knows it, so no page shows them.
    """

    def __init__(self, engine: Engine, settings: Settings, session: str, wake: Callable[[], None]) -> None:
        self._engine = engine
        self._settings = settings
        self._wake = wake
        self._seq = 0
        self._epoch = 0
        self._acks: queue.SimpleQueue[tuple[int, float]] = queue.SimpleQueue()
        self.session = session
        self.outbox: deque[Latents] = deque()
        self.encoder_there = threading.Event()
        self._aborted = threading.Event()

    def acked(self, latents: Latents) -> None:
        """An encoder has decoded one, and its frames have been confirmed."""
        self._acks.put((latents.epoch, time.monotonic()))

    def rearm(self) -> None:
        """Before `run` is submitted once more; an `abort` from now on counts."""
        self._aborted.clear()

    def abort(self) -> None:
        """There are real clips to make."""
        self._aborted.set()
        self._acks.put((-1, 0.0))  # so that nothing waits for the encoders any more

    def run(self) -> Pace | None:
        """The rate to serve; None if aborted on the way."""
        try:
            return self._run()
        finally:
            self._engine.close(self.session, self._seq)

    def _run(self) -> Pace | None:
        if self._settings.fps is not None:
            self._engine.ready_for(self._settings.fps)
            seconds = min(self._denoise(self._settings.fps)[1] for _ in range(2))
            return given_pace(self._settings.fps, seconds, self._settings.clip_frames)
        if self._encoders():
            share = headroom(len(os.sched_getaffinity(0)))
            trial = PaceTrial(self._settings.clip_frames, share, "denoising and decoding a clip")
            if self._try(trial, decoded=True) or self._aborted.is_set():
                return trial.result
            logger.warning("no encoder confirmed the trial's clips in %.0f s", ACK_WAIT)
        logger.info("the frame rate is chosen by the denoiser's time alone: no encoder takes part")
        trial = PaceTrial(self._settings.clip_frames, ALONE[self._engine.device_type], "denoising a clip")
        self._try(trial, decoded=False)
        return trial.result

    def _encoders(self) -> bool:
        if self._settings.encoders == 0:
            return self.encoder_there.is_set()
        return self.encoder_there.wait(ENCODER_WAIT)

    def _try(self, trial: PaceTrial, *, decoded: bool) -> bool:
        """Runs `trial` to its result; False if it was aborted or no clip came back."""
        first_epoch = self._epoch  # what earlier trials left on its way is told apart
        while trial.result is None and not self._aborted.is_set():
            attempt = trial.attempt
            self._epoch = first_epoch + attempt
            if trial.to_send(time.monotonic()):
                self._engine.ready_for(trial.fps)
                latents, seconds = self._denoise(trial.fps)
                trial.sent(seconds, time.monotonic())
                if decoded:
                    self.outbox.append(latents)
                    self._wake()
                else:
                    trial.came_back(attempt, time.monotonic())
            waits = trial.result is None and trial.to_send(time.monotonic()) == 0
            if not self._take_acks(trial, first_epoch, waits):
                break
        self._epoch = first_epoch + trial.attempt + 1
        return trial.result is not None

    def _take_acks(self, trial: PaceTrial, first_epoch: int, waits: bool) -> bool:
        """Hands over what has come back; False if something should have and did not."""
        if waits and trial.outstanding == 0:
            time.sleep(0.05)  # between two attempts
            return True
        try:
            while True:
                epoch, when = self._acks.get(timeout=ACK_WAIT) if waits else self._acks.get_nowait()
                trial.came_back(epoch - first_epoch, when)
                waits = False
        except queue.Empty:
            return not waits

    def _denoise(self, fps: int) -> tuple[Latents, float]:
        clip = self._engine.sample_clip(self.session, self._seq, fps)
        self._seq += 1
        inputs = self._engine.prepare(clip)
        begin = time.monotonic()
        latents = self._engine.denoise(inputs)
        seconds = time.monotonic() - begin
        return Latents(clip.session, self._epoch, clip.seq, clip.pts, fps, latents), seconds
