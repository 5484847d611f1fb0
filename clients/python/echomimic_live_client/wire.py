"""The wire to the gateway, version 2: its messages as bytes and texts. `protocol/SPEC.md` has it in prose.

No I/O. Everything here is written from the specification. The server's tests hold both ends against each
other.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from echomimic_live_client.errors import WireError

#: float32, shape (n,), nominally in −1..1.
Samples = npt.NDArray[np.float32]

#: Name of the websocket subprotocol.
SUBPROTOCOL = "echomimic-live.v2"
#: Rate of `pts`, in Hz, whatever the rate of the client's sound is.
PTS_RATE = 16_000
#: Longest message that the server may send, in bytes.
MAX_DOWN_BYTES = 8 << 20

_FRAME = struct.Struct("<BBHHHIIQ")  # kind, flags, index, count, codec, epoch, seq, pts
_SOUND = struct.Struct("<BBHHHIIQQ")  # kind, flags, 0, 0, 0, epoch, seq, pts, position
_KIND_FRAME, _KIND_SOUND, _KIND_CODED = 1, 2, 3
_KEY = 1
_IDLE = 2
_NO_FRAMES, _INT16, _SAID = 1, 2, 4
#: Longest text of one `say`, in characters.
MAX_SAY_CHARS = 2000
#: How pictures may be coded. The place of a codec is its number on the wire.
CODECS = ("jpeg", "h264", "vp8")


@dataclass(frozen=True, slots=True)
class FrameMessage:
    """A picture as it comes: number `index` of the `count` of clip `seq`, at `pts` of its epoch.

    Attributes:
        data: its bytes.
        codec: one of CODECS.
        key: whether it can be decoded without the pictures before it.
        idle: whether nobody speaks in it.
    """

    data: bytes
    epoch: int
    seq: int
    index: int
    count: int
    pts: int
    codec: str = CODECS[0]
    key: bool = True
    idle: bool = False


@dataclass(frozen=True, slots=True)
class SoundMessage:
    """The sound of clip `seq` as it comes.

    Attributes:
        samples: at the client's rate, exactly as it sent them. Some of a `live` client's may be missing.
        position: samples that the client had sent in this session before these.
        has_frames: False where the clip's pictures do not come. The last picture stays then.
        said: whether it was made of a text. It holds none of the client's samples then.
    """

    samples: Samples
    epoch: int
    seq: int
    pts: int
    position: int
    has_frames: bool
    said: bool = False


@dataclass(frozen=True)
class Ready:
    """The session as the server runs it.

    Attributes:
        session: its name.
        epoch: the life of its state: pictures and sound count from its start.
        fps: pictures for each second of speech.
        clip_frames: pictures of a clip.
        sample_rate: of the client's sound, in Hz.
        width: of a picture in pixels, 0 while unknown.
        height: likewise.
        notice: a sentence about an outage or a lower rate, or an empty text.
        resumed: whether the session went on after a lost connection.
        position: samples of this session that the server has had.
        resume: the token to come back with.
        fields: everything that the text held.
    """

    session: str
    epoch: int
    avatar: str
    pose: str
    fps: int
    clip_frames: int
    sample_rate: int
    width: int
    height: int
    notice: str
    resumed: bool
    position: int
    resume: str = field(repr=False)
    fields: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Status:
    """The server's figures of the session, once a second. `fields` has everything that the text held.

    Attributes:
        fps: pictures for each second of speech.
        fps_sent: pictures that went out in the last second.
        notice: a sentence about an outage or a lower rate, or an empty text.
        seconds_waiting: speech that waits to be worked on.
        clips_waiting: clips that are worked on.
        frames_late: pictures that came after their turn.
        frames_dropped: pictures that this client was too slow for.
        frames_lost: pictures that were not made, for the reason `lost_because`.
    """

    epoch: int
    fps: int
    fps_sent: float
    notice: str
    seconds_waiting: float
    clips_waiting: int
    frames_sent: int
    frames_late: int
    frames_dropped: int
    frames_lost: int
    lost_because: str
    fields: dict[str, Any] = field(repr=False)


@dataclass(frozen=True)
class Interrupted:
    """The answer to an interruption.

    Attributes:
        epoch: the one that begins.
        pts: of the last picture that was shown of the epoch before, None without any.
    """

    epoch: int
    pts: int | None


@dataclass(frozen=True)
class Options:
    """Wishes for a session. None leaves the choice to the server."""

    avatar: str | None = None
    pose: str | None = None
    fps: int | None = None
    sample_rate: int | None = None
    #: `f32`, or `s16` for half the bytes.
    pcm: str | None = None
    #: Codecs of pictures that the program can decode besides JPEG, the best one first: `h264`, `vp8`.
    video: tuple[str, ...] | None = None
    #: What the face does while nothing is sent: `life`, or `still`, which is the server's choice.
    idle: str | None = None

    def merged(self, later: Options) -> Options:
        """These wishes, with those that `later` names in their place."""
        return Options(**{**self.given(), **later.given()})

    def given(self) -> dict[str, Any]:
        """The wishes that are named."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class Resume:
    """The part of a session that a client has when it comes back to it, as in `Coming back` of the SPEC."""

    token: str = field(repr=False)
    epoch: int
    heard: int
    seen: tuple[int, int]
    position: int


def decode(data: bytes) -> FrameMessage | SoundMessage:
    """A binary message.

    Raises:
        WireError: it is none of the wire's, or cut off.
    """
    kind = data[0] if data else -1
    head = {_KIND_FRAME: _FRAME, _KIND_SOUND: _SOUND, _KIND_CODED: _FRAME}.get(kind)
    if head is None:
        raise WireError(f"a message of the unknown kind {kind}")
    if len(data) < head.size:
        raise WireError(f"a message of {len(data)} bytes is shorter than its header")
    if kind != _KIND_SOUND:
        _, flags, index, count, codec, epoch, seq, pts = _FRAME.unpack_from(data)
        if codec >= len(CODECS) or bool(codec) != (kind == _KIND_CODED):
            raise WireError(f"a picture of the unknown codec {codec}")
        key = kind == _KIND_FRAME or bool(flags & _KEY)
        idle = bool(flags & _IDLE)
        return FrameMessage(data[head.size :], epoch, seq, index, count, pts, CODECS[codec], key, idle)
    _, flags, _, _, _, epoch, seq, pts, position = _SOUND.unpack_from(data)
    kind_of_sample = "<i2" if flags & _INT16 else "<f4"
    if (len(data) - head.size) % np.dtype(kind_of_sample).itemsize:
        raise WireError("sound that is not whole samples")
    samples: Samples = np.frombuffer(data, kind_of_sample, offset=head.size).astype(np.float32)
    if flags & _INT16:
        samples /= 32768
    has_frames, said = not flags & _NO_FRAMES, bool(flags & _SAID)
    return SoundMessage(samples, epoch, seq, pts, position, has_frames, said)


def parse_text(text: str) -> dict[str, Any]:
    """A text of the server, a JSON object with a `type`.

    Raises:
        WireError: it is none.
    """
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        raise WireError("a text that is not JSON") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("type"), str):
        raise WireError("a text without a type")
    return fields


def parse_ready(fields: dict[str, Any]) -> Ready:
    """The text `ready`. Raises WireError where a field is missing."""
    texts = ("session", "avatar", "pose", "notice", "resume")
    numbers = ("epoch", "fps", "clip_frames", "sample_rate", "width", "height", "position")
    try:
        values: dict[str, Any] = {name: str(fields[name]) for name in texts}
        values |= {name: int(fields[name]) for name in numbers}
        values["resumed"] = bool(fields["resumed"])
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"a ready with a wrong field: {error}") from None
    if values["fps"] < 1 or values["clip_frames"] < 1 or values["sample_rate"] < 1:
        raise WireError("a ready with a rate of nothing")
    return Ready(**values, fields=fields)


def parse_status(fields: dict[str, Any]) -> Status:
    """The text `status`. Raises WireError where a field is missing."""
    numbers = ("epoch", "fps", "clips_waiting", "frames_sent", "frames_late", "frames_dropped", "frames_lost")
    try:
        values: dict[str, Any] = {name: int(fields[name]) for name in numbers}
        values |= {name: float(fields[name]) for name in ("fps_sent", "seconds_waiting")}
        values |= {name: str(fields[name]) for name in ("notice", "lost_because")}
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"a status with a wrong field: {error}") from None
    return Status(**values, fields=fields)


def parse_interrupted(fields: dict[str, Any]) -> Interrupted:
    """The text `interrupted`. Raises WireError where a field is missing."""
    try:
        pts = fields["pts"]
        return Interrupted(int(fields["epoch"]), None if pts is None else int(pts))
    except (KeyError, TypeError, ValueError) as error:
        raise WireError(f"an interrupted with a wrong field: {error}") from None


def int16_of(samples: Samples) -> npt.NDArray[np.int16]:
    """float32 in −1..1 as int16, shape (n,). Samples that were int16 come out as they were."""
    return np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2")


def pcm_bytes(samples: Samples, int16: bool = False) -> bytes:
    """Samples as they go up, little-endian: float32, or int16."""
    if int16:
        return int16_of(samples).tobytes()
    return np.ascontiguousarray(samples, "<f4").tobytes()


def hello(options: Options, resume: Resume | None = None, live: bool = False) -> str:
    """The first text of a connection."""
    fields: dict[str, Any] = {"type": "hello", **options.given()}
    if live:
        fields["live"] = True
    if resume is not None:
        fields["resume"] = {
            "token": resume.token,
            "epoch": resume.epoch,
            "heard": resume.heard,
            "seen_seq": resume.seen[0],
            "seen_index": resume.seen[1],
            "position": resume.position,
        }
    return json.dumps(fields)


def change(options: Options) -> str:
    """The text with new options."""
    return json.dumps({"type": "options", **options.given()})


def shown(epoch: int, seq: int, index: int) -> str:
    """The text that tells the last picture which was shown or passed over."""
    return json.dumps({"type": "shown", "epoch": epoch, "seq": seq, "index": index})


def taken(epoch: int, seq: int, index: int) -> str:
    """The text that tells the last picture which the program has, to be shown at its time."""
    return json.dumps({"type": "taken", "epoch": epoch, "seq": seq, "index": index})


def interrupt() -> str:
    """The text that drops everything that waits or is under way."""
    return '{"type":"interrupt"}'


def say(text: str, voice: str, own_id: str) -> str:
    """The text to be spoken, under an id."""
    fields = {"type": "say", "text": text, "voice": voice, "id": own_id}
    return json.dumps({name: value for name, value in fields.items() if value}, ensure_ascii=False)


def flush() -> str:
    """The text that ends speech."""
    return '{"type":"flush"}'
