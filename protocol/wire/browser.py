"""The wire between a browser (or any websocket client) and the gateway, versions 1 and 2.

Version 1 has no subprotocol. Binary float32 little-endian PCM goes up. `0x01` + JPEG and `0x02` + float32 PCM
come down. Version 2 is the websocket subprotocol `echomimic-live.v2`. The same PCM goes up, JSON text goes
both ways. Binary messages downwards carry their position in the stream. `protocol/SPEC.md` has it in prose.

Every function takes bytes or text and returns values. Both ends use them, so encoders and decoders are here.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass

import numpy as np

from protocol.wire.messages import Samples
from protocol.wire.phrases import coded, phrase
from protocol.wire.video import CODECS, JPEG

#: Name of the websocket subprotocol of version 2.
SUBPROTOCOL_V2 = "echomimic-live.v2"

#: First byte of a binary message downwards.
KIND_FRAME = 0x01
KIND_AUDIO = 0x02
KIND_CODED = 0x03
#: Flag of a coded frame: it can be decoded without the frames before it.
FLAG_KEY = 0x01
#: Flag of a frame: its clip has no sound and no place in time, so it is shown when it comes.
FLAG_IDLE = 0x02
#: Flag of an audio message: its clip's frames do not come, and the last frame stays.
FLAG_NO_FRAMES = 0x01
#: Flag of an audio message: its samples are int16.
FLAG_INT16 = 0x02
#: Flag of an audio message: its sound was made of a text (`say`), so it has none of the client's samples.
FLAG_SAID = 0x04

#: Longest websocket message a client may send, in bytes: 16 s of 16 kHz float32.
MAX_MESSAGE_BYTES = 1 << 20
#: Samples are floats in -1..1. Hot signals pass, but int16 values that were never divided do not.
MAX_AMPLITUDE = 16.0

_FRAME = struct.Struct("<BBHHHIIQ")  # kind, flags, index, count, codec, epoch, seq, pts
_AUDIO = struct.Struct("<BBHHHIIQQ")  # kind, flags, 0, 0, 0, epoch, seq, pts, position

#: Error code -> websocket close code.
CLOSE_CODES = {
    "bad_audio": 1007,
    "bad_message": 1007,
    "text_not_allowed": 1003,
    "too_large": 1009,
    "no_hello": 1008,
    "bad_option": 1008,
    "too_fast": 1008,
    "slow_client": 1008,
    "forbidden": 1008,
    "token_expired": 1008,
    "token_revoked": 1008,
    "moved": 1008,
    "idle": 1013,
    "busy": 1013,
    "not_ready": 1013,
    "failed": 1011,
    "shutdown": 1012,
}


class BrowserError(ValueError):
    """The end of a connection, told to the client as a word for programs and a sentence for people.

    Args:
        code: the word, a key of CLOSE_CODES.
        message: the sentence.
        reason: the part of the sentence that `phrases` has, where it is not all of it.
    """

    def __init__(self, code: str, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or message

    @property
    def close_code(self) -> int:
        """The websocket's close code."""
        return CLOSE_CODES[self.code]

    @property
    def close_reason(self) -> str:
        """`code: message`, cut to the 123 bytes that the close of a websocket holds."""
        return f"{self.code}: {self.message}".encode()[:123].decode(errors="ignore")


# ---- audio, upwards


def parse_pcm(data: bytes | bytearray | memoryview) -> Samples:
    """The samples of one binary message, float32 (n,), as a copy.

    Raises:
        BrowserError: "bad_audio": the length is no multiple of 4, or a sample is not finite or far outside
            of -1..1.
    """
    if len(data) % 4:
        raise BrowserError("bad_audio", phrase("audio_cut", bytes=len(data), kind="float32", each=4))
    samples = np.frombuffer(data, dtype="<f4").astype(np.float32)
    # One pass: the sum of squares bounds every sample, and is NaN or infinite if any sample is.
    if not float(np.dot(samples, samples)) <= MAX_AMPLITUDE**2:
        peak = float(np.abs(samples).max())
        if not math.isfinite(peak):
            raise BrowserError("bad_audio", phrase("audio_not_finite"))
        if peak > MAX_AMPLITUDE:
            raise BrowserError("bad_audio", phrase("audio_scale", peak=f"{peak:.3g}"))
    return samples


def parse_pcm16(data: bytes | bytearray | memoryview) -> Samples:
    """The samples of one binary message of int16, float32 (n,) in -1..1.

    Raises:
        BrowserError: "bad_audio": the length is odd.
    """
    if len(data) % 2:
        raise BrowserError("bad_audio", phrase("audio_cut", bytes=len(data), kind="int16", each=2))
    samples: Samples = np.frombuffer(data, dtype="<i2").astype(np.float32)
    samples /= 32768
    return samples


def pcm_bytes(samples: Samples, int16: bool = False) -> bytes:
    """Samples as the wire carries them, little-endian: float32, or int16 as `parse_pcm16` reads it."""
    if int16:
        return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes()
    return np.ascontiguousarray(samples, dtype="<f4").tobytes()


# ---- downwards, binary


@dataclass(frozen=True)
class VideoMessage:
    """One frame on its way down. Version 1 carries the JPEG alone."""

    data: bytes
    epoch: int = 0
    #: The clip.
    seq: int = 0
    #: The frame's number in its clip, from 0.
    index: int = 0
    #: Frames of the clip.
    count: int = 0
    #: Position of the frame, in 16 kHz samples from the epoch's start.
    pts: int = 0
    #: How `data` is coded, one of CODECS.
    codec: str = JPEG
    #: Whether it can be decoded without the frames before it.
    key: bool = True
    #: Whether it belongs to no speech: it is shown after the frames before it, when it comes.
    idle: bool = False


@dataclass(frozen=True)
class AudioMessage:
    """The sound of one clip as the client sent it. Version 1 carries the samples alone."""

    #: At the client's rate.
    samples: Samples
    epoch: int = 0
    #: The clip.
    seq: int = 0
    #: Position of the clip, in 16 kHz samples from the epoch's start.
    pts: int = 0
    #: Samples that the client had sent in this session before the clip's first one. It goes on where `pts`
    #: jumps over the padding of a pause, or starts anew with an epoch.
    position: int = 0
    #: False when the clip's frames were dropped.
    frames_follow: bool = True
    #: Whether the wire carries int16, as the client asked for.
    int16: bool = False
    #: Whether it was made of a text, and has none of the client's samples.
    said: bool = False


def encode_video(message: VideoMessage, version: int) -> bytes:
    """`0x01` + JPEG (version 1) or a 24-byte header + JPEG or coded frame (version 2)."""
    if version == 1:
        return bytes([KIND_FRAME]) + message.data
    codec = CODECS.index(message.codec)
    kind, flags = (KIND_CODED, FLAG_KEY * message.key) if codec else (KIND_FRAME, 0)
    flags |= FLAG_IDLE * message.idle
    place = message.epoch, message.seq, message.pts
    return _FRAME.pack(kind, flags, message.index, message.count, codec, *place) + message.data


def encode_audio(message: AudioMessage, version: int) -> bytes:
    """`0x02` + PCM (version 1) or a 32-byte header + PCM (version 2)."""
    if version == 1:
        return bytes([KIND_AUDIO]) + pcm_bytes(message.samples)
    flags = (0 if message.frames_follow else FLAG_NO_FRAMES) | (FLAG_INT16 if message.int16 else 0)
    flags |= FLAG_SAID if message.said else 0
    head = _AUDIO.pack(KIND_AUDIO, flags, 0, 0, 0, message.epoch, message.seq, message.pts, message.position)
    return head + pcm_bytes(message.samples, message.int16)


def decode_down(data: bytes, version: int) -> VideoMessage | AudioMessage:
    """A binary message as the client reads it.

    Raises:
        BrowserError: "bad_message": it is no message, shorter than its header, or of an unknown codec.
            "bad_audio": see `parse_pcm`.
    """
    kind = data[0] if data else -1
    heads = {KIND_FRAME: _FRAME, KIND_AUDIO: _AUDIO, **({} if version == 1 else {KIND_CODED: _FRAME})}
    head = heads.get(kind)
    if head is None:
        raise BrowserError("bad_message", phrase("message_kind", kind=kind))
    start = 1 if version == 1 else head.size
    if len(data) < start:
        raise BrowserError("bad_message", phrase("message_short", bytes=len(data)))
    if version == 1:
        if kind == KIND_FRAME:
            return VideoMessage(data[1:])
        return AudioMessage(parse_pcm(data[1:]))
    if kind in (KIND_FRAME, KIND_CODED):
        _, flags, index, count, codec, epoch, seq, pts = _FRAME.unpack_from(data)
        if codec >= len(CODECS) or bool(codec) != (kind == KIND_CODED):
            raise BrowserError("bad_message", phrase("message_codec", codec=codec, kind=kind))
        key = kind == KIND_FRAME or bool(flags & FLAG_KEY)
        idle = bool(flags & FLAG_IDLE)
        return VideoMessage(data[start:], epoch, seq, index, count, pts, CODECS[codec], key, idle)
    _, flags, _, _, _, epoch, seq, pts, position = _AUDIO.unpack_from(data)
    int16 = bool(flags & FLAG_INT16)
    samples = parse_pcm16(data[start:]) if int16 else parse_pcm(data[start:])
    said = bool(flags & FLAG_SAID)
    return AudioMessage(samples, epoch, seq, pts, position, not flags & FLAG_NO_FRAMES, int16, said)


# ---- downwards, JSON


def encode_text(kind: str, **fields: object) -> str:
    """A JSON text of the gateway: `ready`, `status` or `error`."""
    return json.dumps({"type": kind, **fields}, separators=(",", ":"), allow_nan=False)


def encode_error(error: BrowserError) -> str:
    """The last text before the gateway closes the connection for an error."""
    return encode_text("error", code=error.code, message=error.message, phrase=coded(error.reason))
