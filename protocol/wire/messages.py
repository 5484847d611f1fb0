"""The messages between processes: frozen dataclasses that keep their limits.

Every limit is checked when a message is made, so a message that exists is a valid one. `codec` turns messages
into bytes and back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.wire.limits import (
    MAX_CLIP_FRAMES,
    MAX_COUNT,
    MAX_CREDIT,
    MAX_FPS,
    MAX_FRAME_SIDE,
    MAX_FRAME_TOKENS,
    MAX_HELD_JOBS,
    MAX_JOB,
    MAX_LATENT_CHANNELS,
    MAX_LATENT_SIDE,
    MAX_PCM_SAMPLES,
    MAX_PICTURE_BYTES,
    MAX_REASON_CHARS,
    MAX_SENTENCE_CHARS,
    MAX_SPOKEN_SAMPLES,
    TOKEN_WIDTH,
    ProtocolError,
    check_array,
    check_bool,
    check_choice,
    check_id,
    check_info,
    check_int,
    check_metrics,
    check_text,
)
from protocol.wire.video import CODECS, JPEG

#: The bundled VAE's finer head, whose pictures have twice the side.
FINE_DECODER = "fine"
#: The decoders that a GPU worker may ask for: on a GPU the model's VAE in half precision, the same with 8-bit
#: blocks, and AutoencoderTiny. On any device the finer head.
DECODER_NAMES = ("", "kl", "kl-8bit", "tiny", FINE_DECODER)

#: Mono sound, float32 in -1..1.
Samples = npt.NDArray[np.float32]
Array16 = npt.NDArray[np.float16]
InfoValue = str | int | float | bool | list[str]


@dataclass(frozen=True, slots=True, eq=False)
class Pcm:
    """gateway → audio worker: speech of a session."""

    session: str
    epoch: int
    #: Counts the messages of an epoch.
    seq: int
    #: Position of the first sample after the history in the session's stream, in 16 kHz samples.
    pts: int
    #: Of `samples`, in Hz.
    sample_rate: int
    fps: int
    clip_frames: int
    avatar: str
    pose: str
    #: Pad the begun clip with silence up to its end.
    flush: bool
    #: float32 (n,), finite, nominally in [-1, 1]. n may be 0 when `flush` is set.
    samples: Samples = field(repr=False)
    #: Of the first `history` samples no clip is made: they were spoken before the epoch, and its first clips
    #: are heard with them. Only an epoch's first message has any.
    history: int = 0
    #: How its pictures are to be coded, one of CODECS.
    codec: str = JPEG

    def __post_init__(self) -> None:
        _unit(self)
        check_int("pts", self.pts, 0, MAX_COUNT)
        check_int("sample_rate", self.sample_rate, 8000, 192000)
        check_int("history", self.history, 0, MAX_PCM_SAMPLES if self.seq == 0 else 0)
        check_int("fps", self.fps, 1, MAX_FPS)
        check_int("clip_frames", self.clip_frames, 1, MAX_CLIP_FRAMES)
        check_id("avatar", self.avatar)
        check_id("pose", self.pose)
        check_bool("flush", self.flush)
        check_choice("codec", self.codec, CODECS)
        check_array("samples", self.samples, np.float32, [(self.history + (not self.flush), MAX_PCM_SAMPLES)])
        if not np.isfinite(self.samples).all():
            raise ProtocolError("samples: not all finite")


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """audio worker → GPU worker: the Whisper features that a clip's frames attend to."""

    session: str
    epoch: int
    #: The clip's number in its epoch, from 0.
    seq: int
    #: Position of the clip's first frame, in 16 kHz samples.
    pts: int
    fps: int
    avatar: str
    pose: str
    #: float16 (frames, tokens, 384).
    tokens: Array16 = field(repr=False)
    #: As in Pcm.
    codec: str = JPEG
    #: Whether it holds no voice. Its tokens are those of digital silence then.
    silent: bool = False

    def __post_init__(self) -> None:
        _unit(self)
        check_bool("silent", self.silent)
        check_int("pts", self.pts, 0, MAX_COUNT)
        check_int("fps", self.fps, 1, MAX_FPS)
        check_id("avatar", self.avatar)
        check_id("pose", self.pose)
        check_choice("codec", self.codec, CODECS)
        limits = [(1, MAX_CLIP_FRAMES), (1, MAX_FRAME_TOKENS), (TOKEN_WIDTH, TOKEN_WIDTH)]
        check_array("tokens", self.tokens, np.float16, limits)


@dataclass(frozen=True, slots=True, eq=False)
class Latents:
    """GPU worker → encoder worker: the latents of a clip."""

    session: str
    epoch: int
    seq: int
    pts: int
    fps: int
    #: float16 (frames, channels, h, w), scaled as the denoiser makes them. The encoder divides by the VAE's
    #: scaling factor.
    latents: Array16 = field(repr=False)
    #: As in Pcm. An encoder that has no such codec makes JPEGs.
    codec: str = JPEG
    #: The decoder that is to serve, of `DECODER_NAMES`: "" for the encoder's own choice.
    decoder: str = ""
    #: Whether the clip holds no voice. The same latents come again then, in this session and in others.
    silent: bool = False
    #: Whether it shows somebody's own avatar. Its pictures are not kept for long.
    private: bool = False

    def __post_init__(self) -> None:
        _unit(self)
        check_bool("silent", self.silent)
        check_bool("private", self.private)
        check_int("pts", self.pts, 0, MAX_COUNT)
        check_int("fps", self.fps, 1, MAX_FPS)
        check_choice("codec", self.codec, CODECS)
        check_choice("decoder", self.decoder, DECODER_NAMES)
        limits = [(1, MAX_CLIP_FRAMES), (1, MAX_LATENT_CHANNELS), (1, MAX_LATENT_SIDE), (1, MAX_LATENT_SIDE)]
        check_array("latents", self.latents, np.float16, limits)


@dataclass(frozen=True, slots=True)
class Frame:
    """encoder worker → gateway: one frame of a clip."""

    session: str
    epoch: int
    #: The clip.
    seq: int
    #: The frame's number in its clip, from 0.
    index: int
    #: Frames of the clip.
    count: int
    #: Position of this frame, in 16 kHz samples.
    pts: int
    width: int
    height: int
    #: The picture.
    data: bytes = field(repr=False)
    #: How it is coded.
    codec: str = JPEG
    #: Whether it can be decoded without the frames before it. A clip's first one always can.
    key: bool = True
    #: Whether its clip holds no voice.
    silent: bool = False

    def __post_init__(self) -> None:
        _unit(self)
        check_bool("silent", self.silent)
        check_int("count", self.count, 1, MAX_CLIP_FRAMES)
        check_int("index", self.index, 0, self.count - 1)
        check_int("pts", self.pts, 0, MAX_COUNT)
        check_int("width", self.width, 1, MAX_FRAME_SIDE)
        check_int("height", self.height, 1, MAX_FRAME_SIDE)
        if not isinstance(self.data, bytes) or not 1 <= len(self.data) <= MAX_PICTURE_BYTES:
            raise ProtocolError(f"data: not 1 to {MAX_PICTURE_BYTES} bytes")
        check_choice("codec", self.codec, CODECS)
        check_bool("key", self.key)
        if not self.key and (self.index == 0 or self.codec == JPEG):
            raise ProtocolError("key: the first frame of a clip is one, and so is every JPEG")


@dataclass(frozen=True, slots=True)
class Sentence:
    """gateway → voice worker: a sentence to be spoken."""

    session: str
    #: Counts the interruptions of the session's texts. Close drops the sentences up to one.
    epoch: int
    #: The sentence's number in its epoch.
    seq: int
    #: Rate of the sound that is asked for, in Hz.
    sample_rate: int
    #: The engine's name of a voice. Empty: the one that the server's settings name.
    voice: str
    text: str

    def __post_init__(self) -> None:
        _unit(self)
        check_int("sample_rate", self.sample_rate, 8000, 192000)
        check_text("voice", self.voice, 64)
        check_text("text", self.text, MAX_SENTENCE_CHARS)


@dataclass(frozen=True, slots=True, eq=False)
class SpokenPart:
    """voice worker → gateway: a piece of a sentence's sound."""

    session: str
    epoch: int
    seq: int
    #: Samples of the sentence before this piece.
    position: int
    #: Whether the sentence ends with it.
    last: bool
    #: float32 (n,), finite. n may be 0 in the last piece.
    samples: Samples = field(repr=False)

    def __post_init__(self) -> None:
        _unit(self)
        check_int("position", self.position, 0, MAX_COUNT)
        check_bool("last", self.last)
        check_array("samples", self.samples, np.float32, [(0 if self.last else 1, MAX_SPOKEN_SAMPLES)])
        if not np.isfinite(self.samples).all():
            raise ProtocolError("samples: not all finite")


@dataclass(frozen=True, slots=True)
class Close:
    """gateway → audio workers → GPU workers, and voice workers: the session is over up to this epoch."""

    session: str
    epoch: int

    def __post_init__(self) -> None:
        check_id("session", self.session)
        check_int("epoch", self.epoch, 0, MAX_COUNT)


@dataclass(frozen=True, slots=True)
class Failed:
    """any worker → gateway: clip `seq` will not come, for a reason. `fatal` ends the session with it."""

    session: str
    epoch: int
    seq: int
    stage: str
    reason: str
    fatal: bool

    def __post_init__(self) -> None:
        _unit(self)
        check_id("stage", self.stage)
        check_text("reason", self.reason, MAX_REASON_CHARS)
        check_bool("fatal", self.fatal)


@dataclass(frozen=True, slots=True)
class Status:
    """any worker → gateway: the worker's state, every 0.5 s and when `info` changes."""

    stage: str
    worker: str
    #: Whether it takes jobs.
    warm: bool
    #: Facts that the gateway or a person wants: a flat map.
    info: dict[str, InfoValue]
    #: Finite figures. `figures.py` has the meaning of their names.
    metrics: dict[str, float]

    def __post_init__(self) -> None:
        check_id("stage", self.stage)
        check_id("worker", self.worker)
        check_bool("warm", self.warm)
        check_info(self.info)
        check_metrics(self.metrics)


@dataclass(frozen=True, slots=True)
class Ready:
    """worker → hop server: I take jobs, and hold at most `credit` at once. Repeating it is harmless."""

    stage: str
    worker: str
    credit: int

    def __post_init__(self) -> None:
        check_id("stage", self.stage)
        check_id("worker", self.worker)
        check_int("credit", self.credit, 1, MAX_CREDIT)


@dataclass(frozen=True, slots=True)
class Ack:
    """worker → hop server: the job's output is safe downstream, and the server may forget the job."""

    job: int

    def __post_init__(self) -> None:
        check_int("job", self.job, 1, MAX_JOB)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """worker → hop server, from its work loop: I live, and these are the jobs that I hold.

    hop server → worker, without jobs: a probe. Sending it fails at once when the connection is gone.
    """

    jobs: tuple[int, ...] = ()
    #: The worker has had no work for a while, so its next heartbeat may be 1.6 s away.
    rests: bool = False

    def __post_init__(self) -> None:
        check_bool("rests", self.rests)
        if not isinstance(self.jobs, tuple) or len(self.jobs) > MAX_HELD_JOBS:
            raise ProtocolError(f"jobs: not at most {MAX_HELD_JOBS} job numbers")
        for job in self.jobs:
            check_int("jobs", job, 1, MAX_JOB)


@dataclass(frozen=True, slots=True)
class Bye:
    """worker → hop server: I leave. Give the jobs that I have not acknowledged to another."""


@dataclass(frozen=True, slots=True)
class Hello:
    """hop server → a worker that it does not know, or has given up: drop my jobs, and send READY."""

    #: Is drawn when the server starts.
    server: int

    def __post_init__(self) -> None:
        check_int("server", self.server, 0, MAX_JOB)


@dataclass(frozen=True, slots=True)
class Received:
    """gateway → encoder worker: all frames of this clip have arrived, or they are not wanted."""

    session: str
    epoch: int
    seq: int

    def __post_init__(self) -> None:
        _unit(self)


#: The messages that a hop delivers until they are acknowledged.
Work = Pcm | Clip | Latents | Sentence
Message = (
    Work | Frame | SpokenPart | Close | Failed | Status | Ready | Ack | Heartbeat | Bye | Hello | Received
)


#: Session, epoch and seq. They name a clip in every process.
ClipKey = tuple[str, int, int]


def clip_key(message: Work | Frame | SpokenPart | Failed | Received) -> ClipKey:
    """The clip, or the sentence, that a message is about."""
    return message.session, message.epoch, message.seq


def _unit(message: Any) -> None:
    check_id("session", message.session)
    check_int("epoch", message.epoch, 0, MAX_COUNT)
    check_int("seq", message.seq, 0, MAX_COUNT)
