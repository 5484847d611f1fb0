"""Events of the workers: clips of changing lengths, rates and sessions, through each worker's own code."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from protocol.model.config import ModelConfig
from protocol.process.settings import Settings
from protocol.wire.clock import FRAME_RATES, FULL_RATE, SAMPLE_RATE, frames_of_clip
from protocol.wire.messages import Array16, Clip, Close, Latents, Pcm, Samples
from protocol.wire.video import H264, JPEG
from scripts.torture.growth.stand_in import StandInStage, job_of, key_of
from scripts.torture.viewer import spoken

#: Frames of clips at the full rate, and rates that they are made at.
LENGTHS = (4, 6, 12)
RATES = (*FRAME_RATES, 6)
#: Clips of a session before the next one takes its place, at most.
MOST_CLIPS = 60
#: Of a hundred clips those without a voice.
SILENT_IN_A_HUNDRED = 20
#: Different silent clips of a loop. They are few, so that the caches are full soon.
LOOP = 2
#: Samples of a message, and sessions that speak at a time.
CHUNK, SPEAKERS = 320, 2

#: Yields the bytes in the worker's bounded caches, once for each event.
Events = Iterator[float]


def encoder_events(settings: Settings) -> Events:
    """Latents of clips, decoded and coded."""
    from encoder_worker.worker import EncoderWorker

    stage, dice, noise = StandInStage(), random.Random(0), np.random.default_rng(0)
    worker = EncoderWorker(settings, stage.as_stage())
    stage.warm_up(worker)
    channels, height, width = _latent_shape(settings)
    loop = noise.standard_normal((LOOP, max(LENGTHS), channels, height, width)).astype(np.float16)
    for number in range(1, 1 << 40):
        fps = dice.choice(RATES)
        frames = frames_of_clip(fps, dice.choice(LENGTHS))
        silent = dice.randrange(100) < SILENT_IN_A_HUNDRED
        made = loop[dice.randrange(LOOP), :frames]
        if not silent:
            made = noise.standard_normal(made.shape).astype(np.float16)
        codec = dice.choice((H264, JPEG))
        session = f"s{number // MOST_CLIPS}"
        msg = Latents(session, 0, number, number * frames * SAMPLE_RATE // fps, fps, made, codec, "", silent)
        worker.on_job(job_of(msg, number))
        for output in stage.outputs():
            worker.on_output(output)
        worker.on_confirmed(key_of(session, number))
        worker.on_tick()
        yield stage.metrics.snapshot().get("kept_clips_bytes", 0.0)


def _latent_shape(settings: Settings) -> tuple[int, int, int]:
    from protocol.model.vae_folder import VaeFolder

    config = ModelConfig.load(settings.config)
    folder = VaeFolder.of(config)
    width, height = config.picture_size(settings)
    return int(folder.config["latent_channels"]), height // folder.factor, width // folder.factor


@dataclass
class _Speaker:
    """A session of the audio worker."""

    name: str
    rate: int
    clip_frames: int
    #: Messages before it ends.
    most: int
    sound: Samples
    spoken: int = 0

    def next_message(self) -> Pcm:
        samples = CHUNK * self.rate // SAMPLE_RATE
        places = np.arange(self.spoken * samples, (self.spoken + 1) * samples) % len(self.sound)
        sound = np.ascontiguousarray(self.sound[places])
        place = self.name, 0, self.spoken, self.spoken * CHUNK
        self.spoken += 1
        return Pcm(*place, self.rate, FULL_RATE, self.clip_frames, "a", "p", False, sound)


def audio_events(settings: Settings) -> Events:
    """Speech of sessions at several rates, heard clip by clip."""
    import soxr

    from audio_worker.worker import AudioWorker

    stage, dice = StandInStage(), random.Random(0)
    worker = AudioWorker(settings, stage.as_stage())
    stage.warm_up(worker)
    voice = spoken()[: 60 * SAMPLE_RATE]
    sounds = {
        rate: voice if rate == SAMPLE_RATE else soxr.resample(voice, SAMPLE_RATE, rate).astype(np.float32)
        for rate in (SAMPLE_RATE, 44100, 48000)
    }
    speakers: list[_Speaker] = []
    for number in range(1 << 40):
        if len(speakers) < SPEAKERS:
            rate, frames = dice.choice(list(sounds)), dice.choice(LENGTHS)
            speakers.append(_Speaker(f"s{number}", rate, frames, dice.randrange(50, 1000), sounds[rate]))
        speaker = speakers[number % len(speakers)]
        worker.on_job(job_of(speaker.next_message(), number + 1))
        if speaker.spoken > speaker.most:
            speakers.remove(speaker)
            worker.on_job(job_of(Close(speaker.name, 0), 0))
        worker.on_tick()
        for output in stage.outputs():
            worker.on_output(output)
            yield from [0.0] * len(output.value)


def gpu_events(settings: Settings) -> Events:
    """Clips of all avatars and gestures, prepared and denoised."""
    from gpu_worker.engine.serve import DenoiserEngine
    from gpu_worker.rate.governor import SERVED_RATES
    from gpu_worker.rate.joining import served_lengths
    from gpu_worker.rate.thinning import thin_clip

    engine, dice, noise = DenoiserEngine(settings), random.Random(0), np.random.default_rng(0)
    engine.load()
    engine.clip_frames = LENGTHS[0]
    for fps in FRAME_RATES:
        engine.make_ready_for(fps)
    engine.favour(FULL_RATE)
    while engine.work_in_pause():
        pass
    lengths = served_lengths(engine.clip_frames, FULL_RATE, SERVED_RATES)
    silence: dict[int, Array16] = {}
    session = ""
    for number in range(1 << 40):
        if number % MOST_CLIPS == 0:
            engine.close(session, 0)
            session, avatar = f"s{number}", dice.choice(engine.model.avatars.names)
            pose = dice.choice(engine.model.poses.names)
        silent, frames = dice.randrange(100) < SILENT_IN_A_HUNDRED, dice.choice(lengths)
        place = dice.randrange(LOOP) if silent else number
        clip = replace(engine.trial_clip(session, place, FULL_RATE), avatar=avatar, pose=pose)
        if silent:
            clip = replace(thin_clip(clip, dice.choice(RATES)), silent=True)
            tokens = silence.setdefault(len(clip.tokens), np.zeros_like(clip.tokens))
        else:
            tokens = noise.standard_normal((frames, *clip.tokens.shape[1:])).astype(np.float16)
        _make(engine, replace(clip, tokens=tokens))
        yield engine.metrics()["rest_clips_bytes"]


def _make(engine: object, clip: Clip) -> None:
    from gpu_worker.engine.serve import DenoiserEngine

    assert isinstance(engine, DenoiserEngine)
    if clip.silent and engine.rest(clip) is not None:
        return
    engine.denoise(engine.prepare(clip))
    engine.prepare_ahead(clip)
    engine.check()
