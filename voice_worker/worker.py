"""The voice worker: sentences in, their sound out in pieces, several sentences at once."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import soxr

from protocol.hop.client import Job
from protocol.process.ledger import JobLedger
from protocol.process.settings import Settings, SettingsError
from protocol.process.stage import Stage, Worker
from protocol.wire.limits import shorten
from protocol.wire.messages import ClipKey, Close, Failed, InfoValue, Samples, Sentence, SpokenPart, clip_key
from voice_worker.engine_api import Cancellation, SpeechEngine, VoiceError
from voice_worker.engines import make_engine

logger = logging.getLogger(__name__)

STAGE = "voice_worker"
#: Sentences that are spoken at once, each in a thread of its own.
SENTENCES_AT_ONCE = 4
#: Seconds of sound in the longest piece.
LONGEST_PIECE = 0.5


@dataclass(slots=True)
class _Task:
    """A sentence that is being spoken."""

    sentence: Sentence
    cancelled: Cancellation = field(default_factory=Cancellation)
    #: When its last piece came.
    moved_at: float = field(default_factory=time.monotonic)


class VoiceWorker(Worker):
    """Speaks each sentence in a thread. Its job is acknowledged when all of its sound was sent."""

    def __init__(self, settings: Settings, stage: Stage) -> None:
        self._settings = settings
        self._stage = stage
        self._ledger = JobLedger(stage.jobs.ack)
        self._tasks: dict[ClipKey, _Task] = {}
        #: Tasks, each with its next piece of sound or with the error that ends it.
        self._made: queue.SimpleQueue[tuple[_Task, SpokenPart | Exception]] = queue.SimpleQueue()
        self._engine: SpeechEngine | None = None
        self._name = ""

    def warm_up(self) -> None:
        """Make the engine. Raises SettingsError where it cannot work: starting again would not help."""
        try:
            self._name, self._engine = make_engine(self._settings)
        except VoiceError as error:
            raise SettingsError(str(error)) from error
        logger.info("texts are spoken by %s", self._name)

    def info(self) -> dict[str, InfoValue]:
        """The facts that Status carries."""
        return {"engine": self._name}

    def busy_for(self) -> float:
        """Seconds since the last piece of the sentence that stands still the longest."""
        now = time.monotonic()
        return max((now - task.moved_at for task in self._tasks.values()), default=0.0)

    def on_job(self, job: Job) -> None:
        """Begin a sentence, or drop those that nobody wants any more."""
        if isinstance(job.msg, Close):
            self._close(job.msg)
        elif isinstance(job.msg, Sentence) and self._ledger.enter(job, job.msg):
            task = self._tasks[clip_key(job.msg)] = _Task(job.msg)
            threading.Thread(target=self._speak, args=(task,), name="speech", daemon=True).start()

    def on_reset(self, upstream: int) -> None:
        """The gateway takes its sentences back."""
        for key in self._ledger.void(upstream):
            self._cancel(key)

    def on_tick(self) -> None:
        """Send the pieces that were made."""
        while not self._made.empty():
            task, made = self._made.get()
            key = clip_key(task.sentence)
            if self._tasks.get(key) is not task:  # it was cancelled
                continue
            task.moved_at = time.monotonic()
            if isinstance(made, SpokenPart):
                self._stage.results.send(made)
                self._stage.metrics.count("spoken_samples_total", by=len(made.samples))
                if not made.last:
                    continue
            else:
                self._fail(task.sentence, made)
            del self._tasks[key]
            self._ledger.settle(key)
            self._stage.metrics.count("sentences_total")

    def _fail(self, sentence: Sentence, error: Exception) -> None:
        if isinstance(error, VoiceError):
            logger.error("a sentence of session %s cannot be spoken: %s", sentence.session, error)
        else:
            logger.error("a sentence of session %s failed", sentence.session, exc_info=error)
        self._stage.metrics.count("sentences_failed_total")
        reason = shorten(str(error) or type(error).__name__)
        self._stage.results.send(Failed(*clip_key(sentence), STAGE, reason, fatal=False))

    def _close(self, close: Close) -> None:
        for key in [key for key in self._tasks if key[0] == close.session and key[1] <= close.epoch]:
            self._cancel(key)
        self._ledger.settle_session(close.session, close.epoch)

    def _cancel(self, key: ClipKey) -> None:
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancelled.cancel()

    # ------------------------------------------------------------------ in a sentence's thread

    def _speak(self, task: _Task) -> None:
        try:
            for part in self._parts(task):
                self._made.put((task, part))
                self._stage.wake()
        except Exception as error:  # the loop tells the gateway
            self._made.put((task, error))
            self._stage.wake()

    def _parts(self, task: _Task) -> Iterator[SpokenPart]:
        """The sentence's sound at the rate that was asked for, in pieces that a message can carry."""
        assert self._engine is not None
        sentence, position = task.sentence, 0
        began = time.monotonic()
        longest = round(LONGEST_PIECE * sentence.sample_rate)
        for samples in _at_rate(
            self._engine.speak(sentence.text, sentence.voice, task.cancelled), sentence.sample_rate
        ):
            if not position and len(samples):
                self._stage.metrics.observe("first_sound_seconds", time.monotonic() - began)
            for start in range(0, len(samples), longest):
                piece = samples[start : start + longest]
                yield SpokenPart(*clip_key(sentence), position, last=False, samples=piece)
                position += len(piece)
        yield SpokenPart(*clip_key(sentence), position, last=True, samples=np.empty(0, np.float32))


def _at_rate(pieces: Iterator[tuple[int, Samples]], rate: int) -> Iterator[Samples]:
    """The pieces at another rate."""
    resampler = None
    for own_rate, samples in pieces:
        if own_rate == rate:
            yield samples
            continue
        if resampler is None:
            resampler = soxr.ResampleStream(own_rate, rate, 1, dtype="float32")
        yield resampler.resample_chunk(samples)
    if resampler is not None:
        yield resampler.resample_chunk(np.empty(0, np.float32), last=True)
