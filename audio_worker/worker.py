"""The audio worker: speech in, the audio tokens of each clip out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from audio_worker.clip_features import ClipFeatures
from audio_worker.graph_features import GraphFeatures, WhisperRecord
from audio_worker.sessions import STAGE, DueClip, Sessions
from audio_worker.shipped_whisper import features_of, shipped_whisper
from audio_worker.voice import VoiceDetector
from protocol.hop.client import Job
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import require_openvino
from protocol.model.hardware.arithmetic import cpu_arithmetic
from protocol.model.hardware.torch_missing import require_torch
from protocol.model.timed_apart import LibraryChoice, choose_library, time_apart
from protocol.process.c_allocator import return_freed_memory
from protocol.process.compute import Output
from protocol.process.logs import first_line
from protocol.process.settings import Settings, SettingsError
from protocol.process.stage import Stage, Worker
from protocol.wire.messages import Array16, Clip, Close, Failed, InfoValue, Pcm

if TYPE_CHECKING:
    from audio_worker.features import Features
    from audio_worker.gpu_features import RecordedFeatures

logger = logging.getLogger(__name__)

#: Clips of one call of the encoder.
MAX_BATCH = 8
#: Seconds between two searches for sessions that have been silent for too long.
EXPIRE_EVERY = 1.0


@dataclass(frozen=True, slots=True)
class FeatureBatch:
    """The clips of one call of the encoder."""

    clips: tuple[DueClip, ...]


class AudioWorker(Worker):
    """Keeps the sessions' sound, and computes the tokens of the clips that are due.

    A clip goes through `on_job`, `_start_batch`, `_compute_tokens`, `on_output` and `_send_clip`.
    """

    def __init__(self, settings: Settings, stage: Stage) -> None:
        self._settings = settings
        self._stage = stage
        self._sessions = Sessions()
        self._features: ClipFeatures | None = None
        self._info: dict[str, InfoValue] = {}
        self._device_memory: Callable[[], dict[str, float]] = dict
        self._next_expiry = 0.0

    def warm_up(self) -> None:
        """Load Whisper and run it. The work loop answers heartbeats meanwhile."""
        config = ModelConfig.load(self._settings.config)
        record = WhisperRecord(self._settings, config)
        features = record.load() or self._load_shipped(config, record) or self._load_by_torch(config, record)
        seconds = features.warm_up(MAX_BATCH)
        facts = ", ".join(f"{name} {value}" for name, value in features.facts().items())
        logger.info("Whisper features: %s, %.1f ms a clip", facts, seconds * 1e3)
        detector = VoiceDetector.load(self._settings) if self._settings.silence == "loop" else None
        return_freed_memory()
        self._info = dict(features.facts())
        self._features = ClipFeatures(features, detector)

    def _load_shipped(self, config: ModelConfig, record: WhisperRecord) -> GraphFeatures | None:
        """Whisper as the model ships it, or None where torch serves, or the choice needs it here."""
        if not record.chosen_without_torch:
            return None
        assert record.engine is not None
        dtype = cpu_arithmetic(self._settings.dtype)[-1]  # bfloat16 where the processor has it
        try:
            require_openvino(dtype)
            network = shipped_whisper(config)
            if network is None:
                return None
            choice = choose_library(record, "Whisper", self._time_apart)
            if not choice.openvino:
                return None
            made = features_of(network, self._settings.audio_margin, dtype, record.engine)
        except SettingsError:
            raise
        except Exception as error:  # a library that is not there, or that cannot compute so
            logger.warning("Whisper: OpenVINO cannot serve: %s", first_line(error))
            return None
        if choice.keep:
            record.store(made)
        return made

    def _time_apart(self) -> LibraryChoice:
        """The faster library, timed in a process that ends. Raises ApartError where it cannot be timed."""
        function = "audio_worker.features:time_whisper"
        return time_apart(function, self._settings, {}, stage=STAGE, count=1)[0]

    def _load_by_torch(self, config: ModelConfig, record: WhisperRecord) -> Features | RecordedFeatures:
        """Load Whisper by torch, and the choice between it and OpenVINO where it is to be made."""
        # Here, because the imports take seconds and 350 MB, and a kept encoder needs none of them.
        asks = self._settings.cpu_engine == "torch"
        require_torch("--cpu-engine torch" if asks else "this model's Whisper here")
        from audio_worker.features import load_features
        from audio_worker.gpu_features import load_on_gpu
        from protocol.model.hardware.gpu_memory import device_memory

        on_gpu = load_on_gpu(config, self._settings)
        if on_gpu is None:
            return load_features(config, self._settings, record)
        self._device_memory = partial(device_memory, on_gpu.device)
        return on_gpu

    def info(self) -> dict[str, InfoValue]:
        """The facts that Status carries."""
        return self._info

    def on_job(self, job: Job) -> None:
        """Take speech into its session, or close a session."""
        if isinstance(job.msg, Close):
            self._close(job.msg)
        elif isinstance(job.msg, Pcm):
            self._give_up(self._sessions.add_speech(job.msg, time.monotonic()))
            # The ring has the sound now, and the clips' hop will have the clips.
            self._stage.jobs.ack(job)

    def on_output(self, output: Output) -> None:
        """Send the clips of a batch on, or give them up if its features failed."""
        assert isinstance(output.key, FeatureBatch)
        if output.error is not None:
            logger.error("features failed: %s", output.error, exc_info=output.error)
            reason = f"audio features failed: {output.error}"[:200]
            self._give_up([_failed(clip, reason) for clip in output.key.clips])
        else:
            for clip, (tokens, silent) in zip(output.key.clips, output.value, strict=True):
                self._send_clip(clip, tokens, silent)

    def on_reset(self, upstream: int) -> None:
        """Forget all sessions: the gateway gives them to other workers."""
        self._sessions.clear()

    def on_tick(self) -> None:
        """Start the next batch, forget silent sessions, write the gauges."""
        now = time.monotonic()
        self._give_up(self._sessions.look_no_further(now))
        self._start_batch()
        if now >= self._next_expiry:
            self._next_expiry = now + EXPIRE_EVERY
            for message in self._sessions.expire(now):
                logger.info("session %s was silent for too long and is forgotten", message.session)
                self._stage.out.broadcast(message)
        self._stage.metrics.gauge("sessions", len(self._sessions))
        self._stage.metrics.gauge("clips_due", self._sessions.due)
        for name, value in self._device_memory().items():
            self._stage.metrics.gauge(name, value)

    def _close(self, message: Close) -> None:
        self._sessions.close(message)
        self._stage.out.broadcast(message)

    def _start_batch(self) -> None:
        """Give the clips that are due to the encoder, if it is free. Later ones make the next batch."""
        if self._stage.compute.waiting or not self._sessions.due or self._features is None:
            return
        due = self._sessions.take_due(MAX_BATCH)
        batch = FeatureBatch(tuple(self._without_quiet_ones(due, self._features)))
        if not batch.clips:
            return
        self._stage.metrics.observe("batch_clips", len(batch.clips))
        self._stage.compute.start_task(batch, self._compute_tokens, batch)

    def _without_quiet_ones(self, clips: Sequence[DueClip], features: ClipFeatures) -> list[DueClip]:
        """Send the clips on that nothing has to be computed for, and return the others.

        The compute thread is idle now, and to wake it would cost more than such a clip does.
        """
        others: list[DueClip] = []
        for clip in clips:
            in_turn = all(clip.session != other.session for other in others)
            tokens = features.at_once(clip) if in_turn else None
            if tokens is None:
                others.append(clip)
            else:
                self._send_clip(clip, tokens, silent=True)
        return others

    def _compute_tokens(self, batch: FeatureBatch) -> list[tuple[Array16, bool]]:
        assert self._features is not None
        with self._stage.metrics.time("features_seconds"):
            return self._features.tokens(batch.clips)

    def _send_clip(self, clip: DueClip, tokens: Array16, silent: bool) -> None:
        if not self._sessions.alive(clip):
            return
        message = Clip(
            clip.session, clip.epoch, clip.seq, clip.pts, clip.fps, clip.avatar, clip.pose, tokens,
            clip.codec, silent,
        )  # fmt: skip
        self._stage.metrics.count("clips_total")
        self._stage.metrics.count("clips_silent_total", by=int(silent))
        self._stage.metrics.observe_clip(time.monotonic() - clip.since)
        pushed_out = self._stage.out.dispatch(message)
        self._give_up([_failed(old, "overload") for old in pushed_out if isinstance(old, Clip)])

    def _give_up(self, failed: list[Failed]) -> None:
        for message in failed:
            self._stage.metrics.count("clips_given_up_total")
            self._stage.results.send(message)


def _failed(clip: DueClip | Clip, reason: str) -> Failed:
    return Failed(clip.session, clip.epoch, clip.seq, STAGE, reason, fatal=False)
