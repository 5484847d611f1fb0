"""The messages between processes: frozen dataclasses, their limits, and their bytes.

A message travels as frames: frame 0 is a msgpack map (`kind`, `version` and the fields), frames 1..k are
raw buffers, k fixed by the kind. Every limit is checked when a message is made, so a message that exists
is a valid one, and `decode` builds nothing from bytes whose sizes it has not compared first.
No torch, no zmq, no pickle here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

VERSION = 1

HEADER_BYTES = 4096
STATUS_BYTES = 65536
BUFFER_BYTES = 16 * 2**20
JPEG_BYTES = 4 * 2**20
MAX_FRAMES = 2

FRAMES_PER_CLIP = 64
PCM_SAMPLES = 2**20
TOKEN_WIDTH = 384
TOKENS_PER_FRAME = 256
LATENT_CHANNELS = 32
LATENT_SIDE = 512
PICTURE_SIDE = 8192
FPS = 60
CREDIT = 64
HELD_JOBS = 256
REASON_CHARS = 500

INFO_ENTRIES = 64
INFO_CHARS = 1024
INFO_LIST = 256
METRIC_ENTRIES = 512

COUNT = 2**53  # the largest integer JavaScript and float64 metrics keep exactly
JOB = 2**64 - 1

_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_METRIC = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,95}")

Array32 = npt.NDArray[np.float32]
Array16 = npt.NDArray[np.float16]
InfoValue = str | int | float | bool | list[str]


class ProtocolError(ValueError):
    """A message, or bytes meant to be one, breaks the protocol; the text says which field and why."""


def _id(name: str, value: object) -> None:
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise ProtocolError(f"{name}: {_show(value)} is not 1 to 64 letters, digits, '_', '.' or '-'")


def _int(name: str, value: object, low: int, high: int) -> None:
    if type(value) is not int or not low <= value <= high:
        raise ProtocolError(f"{name}: {_show(value)} is not an integer from {low} to {high}")


def _bool(name: str, value: object) -> None:
    if type(value) is not bool:
        raise ProtocolError(f"{name}: {_show(value)} is not true or false")


def _text(name: str, value: object, limit: int) -> None:
    if not isinstance(value, str) or len(value) > limit:
        raise ProtocolError(f"{name}: {_show(value)} is not text of at most {limit} characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ProtocolError(f"{name}: {_show(value)} cannot be written as UTF-8") from error


def _array(name: str, value: object, dtype: type[np.generic], limits: Sequence[tuple[int, int]]) -> None:
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim != len(limits):
        found = f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ProtocolError(f"{name}: {found} is not a {len(limits)}-dimensional {dtype.__name__} array")
    for axis, (size, (low, high)) in enumerate(zip(value.shape, limits, strict=True)):
        if not low <= size <= high:
            raise ProtocolError(f"{name}: axis {axis} has size {size}, not {low} to {high}")
    if value.nbytes > BUFFER_BYTES:
        raise ProtocolError(f"{name}: {value.nbytes} bytes, more than {BUFFER_BYTES}")


def _show(value: object) -> str:
    """A short description of an untrusted value: containers can be large or refer to themselves."""
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."


def shorten(text: str, limit: int = REASON_CHARS) -> str:
    """`text` on one line and at most `limit` characters: fit for `Failed.reason` and `Status.info`."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


@dataclass(frozen=True, slots=True, eq=False)
class Pcm:
    """gateway → audio worker: speech of a session.

    `pts` is the position of the first sample in the session's stream, in 16 kHz samples. `samples` are
    float32 (n,) in [-1, 1] nominally, at `sample_rate`; all finite; n may be 0 when `flush` is set.
    `flush`: pad the partial clip with silence up to the clip boundary. `seq` counts messages of an epoch.
    """

    session: str
    epoch: int
    seq: int
    pts: int
    sample_rate: int
    fps: int
    clip_frames: int
    avatar: str
    pose: str
    flush: bool
    samples: Array32 = field(repr=False)

    def __post_init__(self) -> None:
        _unit(self)
        _int("pts", self.pts, 0, COUNT)
        _int("sample_rate", self.sample_rate, 8000, 192000)
        _int("fps", self.fps, 1, FPS)
        _int("clip_frames", self.clip_frames, 1, FRAMES_PER_CLIP)
        _id("avatar", self.avatar)
        _id("pose", self.pose)
        _bool("flush", self.flush)
        _array("samples", self.samples, np.float32, [(0 if self.flush else 1, PCM_SAMPLES)])
        if not np.isfinite(self.samples).all():
            raise ProtocolError("samples: not all finite")


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """audio worker → GPU worker: what a clip's frames attend to.

    `tokens` are float16 (frames, tokens, 384) Whisper features. `seq` is the clip's number from 0 in its
    epoch, `pts` the 16 kHz sample position of its first frame.
    """

    session: str
    epoch: int
    seq: int
    pts: int
    fps: int
    avatar: str
    pose: str
    tokens: Array16 = field(repr=False)

    def __post_init__(self) -> None:
        _unit(self)
        _int("pts", self.pts, 0, COUNT)
        _int("fps", self.fps, 1, FPS)
        _id("avatar", self.avatar)
        _id("pose", self.pose)
        limits = [(1, FRAMES_PER_CLIP), (1, TOKENS_PER_FRAME), (TOKEN_WIDTH, TOKEN_WIDTH)]
        _array("tokens", self.tokens, np.float16, limits)


@dataclass(frozen=True, slots=True, eq=False)
class Latents:
    """GPU worker → encoder worker: a clip's latents, float16 (frames, channels, h, w).

    Scaled as the denoiser makes them: the encoder divides by the VAE's scaling factor.
    """

    session: str
    epoch: int
    seq: int
    pts: int
    fps: int
    latents: Array16 = field(repr=False)

    def __post_init__(self) -> None:
        _unit(self)
        _int("pts", self.pts, 0, COUNT)
        _int("fps", self.fps, 1, FPS)
        limits = [(1, FRAMES_PER_CLIP), (1, LATENT_CHANNELS), (1, LATENT_SIDE), (1, LATENT_SIDE)]
        _array("latents", self.latents, np.float16, limits)


@dataclass(frozen=True, slots=True)
class Frame:
    """encoder worker → gateway: picture `index` of the `count` of clip `seq`; `pts` is the picture's own."""

    session: str
    epoch: int
    seq: int
    index: int
    count: int
    pts: int
    width: int
    height: int
    jpeg: bytes = field(repr=False)

    def __post_init__(self) -> None:
        _unit(self)
        _int("count", self.count, 1, FRAMES_PER_CLIP)
        _int("index", self.index, 0, self.count - 1)
        _int("pts", self.pts, 0, COUNT)
        _int("width", self.width, 1, PICTURE_SIDE)
        _int("height", self.height, 1, PICTURE_SIDE)
        if not isinstance(self.jpeg, bytes) or not 1 <= len(self.jpeg) <= JPEG_BYTES:
            raise ProtocolError(f"jpeg: not 1 to {JPEG_BYTES} bytes")


@dataclass(frozen=True, slots=True)
class Close:
    """gateway → audio workers → GPU workers: forget this session up to and including this epoch."""

    session: str
    epoch: int

    def __post_init__(self) -> None:
        _id("session", self.session)
        _int("epoch", self.epoch, 0, COUNT)


@dataclass(frozen=True, slots=True)
class Failed:
    """any worker → gateway: clip `seq` will not come, and why; `fatal` ends the session with that reason."""

    session: str
    epoch: int
    seq: int
    stage: str
    reason: str
    fatal: bool

    def __post_init__(self) -> None:
        _unit(self)
        _id("stage", self.stage)
        _text("reason", self.reason, REASON_CHARS)
        _bool("fatal", self.fatal)


@dataclass(frozen=True, slots=True)
class Status:
    """any worker → gateway, every 0.5 s and on change.

    `info` is flat: name → text, number, truth value or list of text. `metrics`: name → finite float.
    """

    stage: str
    worker: str
    warm: bool
    info: dict[str, InfoValue]
    metrics: dict[str, float]

    def __post_init__(self) -> None:
        _id("stage", self.stage)
        _id("worker", self.worker)
        _bool("warm", self.warm)
        if not isinstance(self.info, dict) or len(self.info) > INFO_ENTRIES:
            raise ProtocolError(f"info: not a map of at most {INFO_ENTRIES} entries")
        for name, value in self.info.items():
            _id("info", name)
            _info_value(f"info.{name}", value)
        if not isinstance(self.metrics, dict) or len(self.metrics) > METRIC_ENTRIES:
            raise ProtocolError(f"metrics: not a map of at most {METRIC_ENTRIES} entries")
        for name, number in self.metrics.items():
            if not isinstance(name, str) or _METRIC.fullmatch(name) is None:
                raise ProtocolError(f"metrics: {_show(name)} is not a metric's name")
            if type(number) not in (int, float) or abs(number) > COUNT or math.isnan(number):
                raise ProtocolError(f"metrics.{name}: {_show(number)} is not a finite number up to 2**53")


@dataclass(frozen=True, slots=True)
class Ready:
    """worker → hop server: I take work, at most `credit` jobs unacknowledged. Repeating it is harmless."""

    stage: str
    worker: str
    credit: int

    def __post_init__(self) -> None:
        _id("stage", self.stage)
        _id("worker", self.worker)
        _int("credit", self.credit, 1, CREDIT)


@dataclass(frozen=True, slots=True)
class Ack:
    """worker → hop server: job's output is safe downstream; the server may forget it."""

    job: int

    def __post_init__(self) -> None:
        _int("job", self.job, 1, JOB)


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """worker → hop server, from its work loop; `jobs` are those it holds, so that a lost one is noticed.

    hop server → worker with no jobs: a probe, which fails at once when the worker's connection is gone.
    """

    jobs: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.jobs, tuple) or len(self.jobs) > HELD_JOBS:
            raise ProtocolError(f"jobs: not at most {HELD_JOBS} job numbers")
        for job in self.jobs:
            _int("jobs", job, 1, JOB)


@dataclass(frozen=True, slots=True)
class Bye:
    """worker → hop server: I am leaving; give what I have not acknowledged to another."""


@dataclass(frozen=True, slots=True)
class Hello:
    """hop server → worker it does not know (any more): drop what you hold of mine and send READY.

    `server` is a number drawn when the server started, so a worker can tell a restart from having been
    given up.
    """

    server: int

    def __post_init__(self) -> None:
        _int("server", self.server, 0, JOB)


@dataclass(frozen=True, slots=True)
class Received:
    """gateway → encoder worker: all frames of this clip have arrived."""

    session: str
    epoch: int
    seq: int

    def __post_init__(self) -> None:
        _unit(self)


Work = Pcm | Clip | Latents
Message = Work | Frame | Close | Failed | Status | Ready | Ack | Heartbeat | Bye | Hello | Received


def _unit(message: Any) -> None:
    _id("session", message.session)
    _int("epoch", message.epoch, 0, COUNT)
    _int("seq", message.seq, 0, COUNT)


def _info_value(name: str, value: object) -> None:
    if isinstance(value, list):
        if len(value) > INFO_LIST:
            raise ProtocolError(f"{name}: more than {INFO_LIST} entries")
        for text in value:
            _text(name, text, INFO_CHARS)
    elif isinstance(value, str):
        _text(name, value, INFO_CHARS)
    elif type(value) is float:
        if not math.isfinite(value):
            raise ProtocolError(f"{name}: {value} is not finite")
    elif type(value) is int:
        _int(name, value, -COUNT, COUNT)
    else:
        _bool(name, value)


# ---------------------------------------------------------------------------------------------- bytes

_CLASSES: tuple[type[Any], ...] = (
    Pcm, Clip, Latents, Frame, Close, Failed, Status, Ready, Ack, Heartbeat, Bye, Hello, Received,
)  # fmt: skip
_BY_KIND: dict[str, type[Any]] = {cls.__name__.lower(): cls for cls in _CLASSES}
_ARRAYS: dict[str, tuple[str, type[np.generic], int]] = {  # kind → (field, dtype, dimensions)
    "pcm": ("samples", np.float32, 1),
    "clip": ("tokens", np.float16, 3),
    "latents": ("latents", np.float16, 4),
}
_BUFFERS = {kind: array[0] for kind, array in _ARRAYS.items()} | {"frame": "jpeg"}
_HEADER_FIELDS = {
    kind: tuple(f.name for f in fields(cls) if f.name != _BUFFERS.get(kind)) for kind, cls in _BY_KIND.items()
}


def encode(message: Message) -> list[bytes | memoryview]:
    """The frames of `message`. Buffers are views: send or copy them before the array is written again."""
    kind = type(message).__name__.lower()
    header: dict[str, Any] = {"kind": kind, "version": VERSION}
    for name in _HEADER_FIELDS[kind]:
        header[name] = getattr(message, name)
    frames: list[bytes | memoryview] = []
    if kind in _ARRAYS:
        array = np.ascontiguousarray(getattr(message, _ARRAYS[kind][0]))
        header["shape"] = list(array.shape)
        frames.append(array.reshape(-1).view(np.uint8).data)
    elif isinstance(message, Frame):
        frames.append(message.jpeg)
    packed: bytes = msgpack.packb(header)
    if len(packed) > (STATUS_BYTES if kind == "status" else HEADER_BYTES):
        raise ProtocolError(f"{kind}: header of {len(packed)} bytes is too large")
    return [packed, *frames]


def decode(frames: Sequence[bytes | memoryview]) -> Message:
    """The message whose frames these are; arrays are read-only views of the frames, not copies.

    Raises ProtocolError, and nothing else, for any bytes that `encode` could not have made.
    """
    if not 1 <= len(frames) <= MAX_FRAMES:
        raise ProtocolError(f"{len(frames)} frames: a message has 1 to {MAX_FRAMES}")
    header = _unpack(frames[0])
    kind = header.pop("kind", None)
    version = header.pop("version", None)
    if version != VERSION or type(version) is not int:
        raise ProtocolError(f"version: {_show(version)}, this side speaks {VERSION}")
    if not isinstance(kind, str) or kind not in _BY_KIND:
        raise ProtocolError(f"kind: {_show(kind)} is unknown")
    if kind != "status" and len(frames[0]) > HEADER_BYTES:
        raise ProtocolError(f"{kind}: header of {len(frames[0])} bytes is too large")
    if len(frames) != 1 + (kind in _BUFFERS):
        raise ProtocolError(f"{kind}: {len(frames)} frames, not {1 + (kind in _BUFFERS)}")
    if kind in _ARRAYS:
        header[_ARRAYS[kind][0]] = _view(kind, header.pop("shape", None), frames[1])
    elif kind == "frame":
        header["jpeg"] = bytes(frames[1]) if len(frames[1]) <= JPEG_BYTES else None
    elif kind == "heartbeat" and isinstance(header.get("jobs"), list):
        header["jobs"] = tuple(header["jobs"])
    expected = len(_HEADER_FIELDS[kind]) + (kind in _BUFFERS)
    if len(header) != expected or any(name not in header for name in _HEADER_FIELDS[kind]):
        raise ProtocolError(f"{kind}: its fields are {', '.join(_HEADER_FIELDS[kind]) or 'none'}")
    message: Message = _BY_KIND[kind](**header)
    return message


def _unpack(data: bytes | memoryview) -> dict[str, Any]:
    if len(data) > STATUS_BYTES:
        raise ProtocolError(f"header of {len(data)} bytes is too large")
    try:
        header = msgpack.unpackb(
            data, raw=False, strict_map_key=True, max_str_len=4 * INFO_CHARS, max_bin_len=0, max_ext_len=0,
            max_array_len=max(HELD_JOBS, INFO_LIST), max_map_len=METRIC_ENTRIES,
        )  # fmt: skip
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        # msgpack raises all of these for hostile bytes; nesting alone can end in RecursionError
        raise ProtocolError(f"header is not msgpack: {type(error).__name__}") from error
    if not isinstance(header, dict) or not all(isinstance(key, str) for key in header):
        raise ProtocolError("header is not a map of named fields")
    return header


def _view(kind: str, shape: object, data: bytes | memoryview) -> npt.NDArray[Any]:
    name, dtype, dimensions = _ARRAYS[kind]
    if not isinstance(shape, list) or len(shape) != dimensions:
        raise ProtocolError(f"{kind}: shape {_show(shape)} has not {dimensions} sizes")
    for size in shape:
        _int("shape", size, 0, BUFFER_BYTES)
    if len(data) > BUFFER_BYTES or len(data) != math.prod(shape) * np.dtype(dtype).itemsize:
        raise ProtocolError(f"{name}: {len(data)} bytes do not fill the shape {shape}")
    array = np.frombuffer(data, dtype=dtype).reshape(shape)
    array.flags.writeable = False
    return array
