"""Runs the rate trial: denoises its clips in the compute thread and has the encoders decode them."""

from __future__ import annotations

import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from gpu_worker.engine_api import Engine
from gpu_worker.rate.trial import (
    FOLLOWING_CLIPS,
    MAX_SHARE,
    MAX_SHARE_DENOISING,
    TIMED_CLIPS,
    RateChoice,
    RateTrial,
    choose_given_rate,
    max_share,
)
from protocol.process.settings import Settings
from protocol.wire.clock import FRAME_RATES, frames_of_clip
from protocol.wire.messages import FINE_DECODER, Clip, Latents

logger = logging.getLogger(__name__)

#: Seconds to wait for a first encoder.
ENCODER_WAIT = 20.0

#: Seconds to wait for an encoder to confirm a clip.
ACK_WAIT = 15.0

#: Seconds to wait for a clip's confirmation where the encoder may have to make its decoder first.
DECODER_WAIT = 60.0

#: Clips of which the fastest counts, where one is timed with nothing beside it.
TIMED_ALONE = 3

#: Most seconds for timing clips of a given rate in a row, but for two of them.
ROW_SECONDS = 0.7

#: The epoch under which `abort` ends the wait for confirmations; no clip has it.
_ABORTED = -1


class TrialRunner:
    """Runs trials one at a time. `run` belongs to the compute thread, the other methods to the loop's thread.

    Args:
        engine: denoises the clips.
        settings: of this worker.
        session: the name under which the latents travel. No gateway knows it, so no page shows them.
        wake: makes the loop take latents from `outbox`.
    """

    #: Latents for the loop to send to the encoders.
    outbox: deque[Latents]
    #: Set by the loop when an encoder has joined.
    encoder_joined: threading.Event
    #: The decoder that the encoders are asked for, "" for their own choice.
    decoder: str
    #: Whether the VAE's finer head draws, for clips outside a trial.
    fine: bool

    def __init__(self, engine: Engine, settings: Settings, session: str, wake: Callable[[], None]) -> None:
        self.session = session
        self.outbox = deque()
        self.encoder_joined = threading.Event()
        self.decoder = ""
        self.fine = False
        self._engine = engine
        self._settings = settings
        self._wake = wake
        self._seq = 0
        self._epoch = 0
        self._favour = False
        #: The epoch in which each decoder was asked for.
        self._asked_at: dict[str, int] = {}
        #: (epoch, time) of clips that an encoder has confirmed.
        self._confirmed: queue.SimpleQueue[tuple[int, float]] = queue.SimpleQueue()
        self._aborted = threading.Event()
        #: Clips of an attempt and their inputs, prepared before.
        self._inputs: deque[tuple[Clip, Any]] = deque()

    def adopt(self, settings: Settings) -> None:
        """Try by these settings from now on."""
        self._settings = settings

    # ------------------------------------------------------------------ for the loop's thread

    def confirm(self, latents: Latents) -> None:
        """Reports that an encoder has decoded this clip."""
        self._confirmed.put((latents.epoch, time.monotonic()))

    def rearm(self) -> None:
        """Forgets an earlier `abort`. Call it before `run` is given to the compute thread once more."""
        self._aborted.clear()

    def abort(self) -> None:
        """Ends the trial soon, because real clips wait for the device."""
        self._aborted.set()
        self._confirmed.put((_ABORTED, 0.0))

    # ------------------------------------------------------------------ in the compute thread

    def run(self, *, favour: bool = False) -> RateChoice | None:
        """The rate and the length of clips to serve, or None if the trial was aborted.

        Args:
            favour: whether the engine is to favour the clips on trial. It takes seconds where no network is
                kept for them.
        """
        self._favour = favour
        try:
            if self._settings.fps is not None:
                return self._time_given_rate(self._settings.fps)
            engine = self._engine
            return self._choose_rate(FRAME_RATES, engine.clip_lengths, engine.heads, engine.spare_length)
        finally:
            self._engine.close(self.session, self._seq)

    def time_rate(self, fps: int) -> RateChoice | None:
        """The seconds that clips of this rate take, or None if the trial was aborted."""
        self._favour = False
        try:
            return self._choose_rate((fps,), (self._engine.clip_frames,), (self.fine,))
        finally:
            self._engine.close(self.session, self._seq)

    def time_denoising(self, fps: int) -> float:
        """Seconds of denoising a clip that follows no other, by the way that is ready."""
        times = []
        for _ in range(TIMED_ALONE):
            times.append(self._denoise(fps)[1])
            self._engine.close(self.session, self._seq)
        return min(times)

    def time_decoding(self, fps: int, decoder: str) -> float | None:
        """Seconds from a clip's latents to its pictures at the gateway, with nothing beside. None: none came.

        Args:
            fps: of the clip.
            decoder: as `Latents.decoder` has it. The first clip waits until an encoder has made it.
        """
        if not self._wait_for_encoder():
            return None
        times = []
        for number in range(TIMED_ALONE):
            latents, _ = self._denoise(fps)
            self._engine.close(self.session, self._seq)  # a clip that follows may not be ready
            self._epoch += 1
            begin = time.monotonic()
            self.outbox.append(replace(latents, epoch=self._epoch, decoder=decoder))
            self._wake()
            confirmed = self._wait_for(self._epoch, ACK_WAIT if number else DECODER_WAIT)
            if confirmed is None:
                return None
            times.append(confirmed - begin)
        self._epoch += 1
        return min(times)

    def ask_for(self, fps: int, decoder: str) -> None:
        """Has an encoder make a decoder for clips of this rate, and does not wait for it."""
        if not decoder:
            return
        # An epoch of its own, so that nobody takes its confirmation for another clip's.
        self._epoch += 1
        self._asked_at[decoder] = self._epoch
        blank = np.zeros(
            (frames_of_clip(fps, self._engine.clip_frames), *self._engine.latent_size), np.float16
        )
        self.outbox.append(Latents(self.session, self._epoch, 0, 0, fps, blank, decoder=decoder))
        self._epoch += 1
        self._wake()

    def has_decoder(self, decoder: str) -> bool:
        """Whether an encoder has the decoder that `ask_for` was last given. Waits until it is made."""
        epoch = self._asked_at.get(decoder)
        if epoch is None or not self._wait_for_encoder():
            return False
        return self._wait_for(epoch, DECODER_WAIT) is not None

    def _wait_for(self, epoch: int, seconds: float) -> float | None:
        """When the clip of this epoch was confirmed, or None after so many seconds."""
        deadline = time.monotonic() + seconds
        with suppress(queue.Empty):
            while (left := deadline - time.monotonic()) > 0:
                confirmed, at = self._confirmed.get(True, left)
                if confirmed == epoch:
                    return at
        return None

    def _time_given_rate(self, fps: int) -> RateChoice:
        self._engine.favour(fps)
        seconds = self._time_row(fps) if self._engine.device_type == "cuda" else self._time_two(fps)
        # Nothing is tried, so the finer head draws only where --width and --height ask for it.
        return choose_given_rate(fps, seconds, self._engine.clip_frames, fine=self._engine.heads[-1])

    def _time_two(self, fps: int) -> float:
        return min(self._denoise(fps)[1] for _ in range(2))

    def _time_row(self, fps: int) -> float:
        """Seconds of a clip that follows another, the median of a few. By these the sessions are counted."""
        self._prepare_ahead(fps)
        try:
            first, times = self._denoise(fps)[1], list[float]()
            while not times or (len(times) < TIMED_CLIPS and first + sum(times) < ROW_SECONDS):
                times.append(self._denoise(fps)[1])
        finally:
            self._inputs.clear()
        return median(times)

    def _choose_rate(
        self, rates: Sequence[int], lengths: Sequence[int], heads: Sequence[bool], spare: int | None = None
    ) -> RateChoice | None:
        before = self._engine.clip_frames
        trial = self._trial(rates, lengths, heads, spare)
        result, tried = trial.result, self._engine.clip_frames
        # Also after an abort: the sessions that speak have the clips of before.
        self._engine.clip_frames = before if result is None else result.clip_frames
        if self._favour and result is not None and result.clip_frames > tried:
            self._engine.favour(result.fps)  # a shorter length was tried after the one that is served
        return result

    def _trial(
        self, rates: Sequence[int], lengths: Sequence[int], heads: Sequence[bool], spare: int | None
    ) -> RateTrial:
        """A trial that has ended, with its result unless it was aborted."""
        if self._wait_for_encoder():
            share = max_share(len(os.sched_getaffinity(0)))
            trial = RateTrial(share, "denoising and decoding a clip", rates, lengths, heads, spare)
            if self._try_rates(trial, decoded=True) or self._aborted.is_set():
                return trial
            logger.warning("no encoder confirmed the trial's clips in %.0f s", ACK_WAIT)
        logger.info("the frame rate is chosen by the denoiser's time alone: no encoder takes part")
        share = MAX_SHARE_DENOISING[self._engine.device_type]
        if self._engine.device_type == "cpu":
            share *= max_share(len(os.sched_getaffinity(0))) / MAX_SHARE
        trial = RateTrial(share, "denoising a clip", rates, lengths, heads[-1:])
        self._try_rates(trial, decoded=False)
        return trial

    def _wait_for_encoder(self) -> bool:
        if self._settings.encoders == 0:
            return self.encoder_joined.is_set()
        return self.encoder_joined.wait(ENCODER_WAIT)

    def _try_rates(self, trial: RateTrial, *, decoded: bool) -> bool:
        """Runs `trial` to its result. False: it was aborted or a clip did not come back."""
        # An epoch for each attempt, so that clips of earlier ones are told apart when they come back late.
        first_epoch = self._epoch
        while trial.result is None and not self._aborted.is_set():
            attempt = trial.attempt
            self._epoch = first_epoch + attempt
            if trial.clips_to_send(time.monotonic()):
                self._engine.clip_frames = trial.pace.clip_frames
                (self._engine.favour if self._favour else self._engine.make_ready_for)(trial.fps)
                if self._engine.device_type == "cuda" and not self._inputs:
                    self._prepare_ahead(trial.fps)
                latents, seconds = self._denoise(trial.fps)
                latents = replace(latents, decoder=self._decoder_of(trial.pace.fine))
                trial.clip_sent(seconds, time.monotonic())
                if decoded:
                    self.outbox.append(latents)
                    self._wake()
                else:
                    trial.clip_returned(attempt, time.monotonic())
            must_wait = trial.result is None and trial.clips_to_send(time.monotonic()) == 0
            if not self._take_confirmed(trial, first_epoch, must_wait):
                break
            if trial.attempt != attempt:
                self._inputs.clear()
        self._inputs.clear()
        self._epoch = first_epoch + trial.attempt + 1
        return trial.result is not None

    def _prepare_ahead(self, fps: int) -> None:
        """Prepares the inputs of an attempt's clips. In service another thread does so meanwhile.

        On a CPU both threads share the cores, so there it is timed with the rest.
        """
        for number in range(TIMED_CLIPS + FOLLOWING_CLIPS):
            clip = self._engine.trial_clip(self.session, self._seq + number, fps)
            self._inputs.append((clip, self._engine.prepare(clip)))

    def _take_confirmed(self, trial: RateTrial, first_epoch: int, must_wait: bool) -> bool:
        """Reports confirmed clips to the trial. False: it had to wait for one, and none came."""
        if must_wait and trial.in_flight == 0:
            time.sleep(0.05)  # the pause between two attempts at a rate
            return True
        # The first clip of another head waits until an encoder has made its decoder.
        wait = DECODER_WAIT if trial.returned == 0 and len(self._engine.heads) > 1 else ACK_WAIT
        try:
            while True:
                epoch, confirmed_at = self._confirmed.get(must_wait, wait)
                trial.clip_returned(epoch - first_epoch, confirmed_at)
                must_wait = False
        except queue.Empty:
            return not must_wait

    def _denoise(self, fps: int) -> tuple[Latents, float]:
        """A clip at `fps`, and the seconds that denoising it took."""
        if self._inputs:
            clip, inputs = self._inputs.popleft()
        else:
            clip = self._engine.trial_clip(self.session, self._seq, fps)
            inputs = self._engine.prepare(clip)
        self._seq += 1
        begin = time.monotonic()
        latents = self._engine.denoise(inputs)
        seconds = time.monotonic() - begin
        decoder = self._decoder_of(self.fine)
        made = Latents(clip.session, self._epoch, clip.seq, clip.pts, fps, latents, decoder=decoder)
        return made, seconds

    def _decoder_of(self, fine: bool) -> str:
        return FINE_DECODER if fine else self.decoder
