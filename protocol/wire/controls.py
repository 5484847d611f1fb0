"""The JSON texts that a client sends, and the options of a version 1 client's address."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from protocol.wire.browser import BrowserError
from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.phrases import phrase
from protocol.wire.video import CODECS

#: Longest JSON text a client may send, in characters.
MAX_TEXT_CHARS = 16384
#: Longest text of one `say`, in characters: some two minutes of speech.
MAX_SAY_CHARS = 2000
#: Longest id of a `say`, in characters.
MAX_ID_CHARS = 64
#: Rates of PCM that a client may choose, in Hz.
SAMPLE_RATES = (8000, 11025, 12000, SAMPLE_RATE, 22050, 24000, 32000, 44100, 48000)
#: How a client may write its samples: float32, or int16 where 32768 stands for 1.
PCM_FORMATS = ("f32", "s16")
#: Most codecs that a client may name.
MOST_CODECS = 8
#: Names of voices that a client may ask for. None is a path, or an option of a program.
VOICE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9+_-]{0,63}")
#: What the face does while the client sends nothing: it breathes, blinks and moves, or the last frame stays.
IDLE_WAYS = ("life", "still")


@dataclass(frozen=True)
class Options:
    """The wishes of a client for its session. None leaves the choice to the gateway."""

    avatar: str | None = None
    pose: str | None = None
    fps: int | None = None
    sample_rate: int | None = None
    #: One of PCM_FORMATS.
    pcm: str | None = None
    #: The codecs of pictures that the client can decode besides JPEG, the best one first.
    video: tuple[str, ...] | None = None

    def merged(self, later: Options) -> Options:
        """These options, with those that `later` names in their place."""
        return Options(**{**asdict(self), **{k: v for k, v in asdict(later).items() if v is not None}})


@dataclass(frozen=True)
class Resume:
    """A client comes back to its session, and says what it has of it."""

    #: From its last `ready`.
    token: str
    #: The epoch in which it was.
    epoch: int
    #: The clip whose sound came last, -1 before the first.
    heard: int
    #: Clip and index of the frame that came last, -1 before the first.
    seen: tuple[int, int]
    #: Samples sent up to the end of the last sound that came back: a new gateway goes on from there.
    position: int


@dataclass(frozen=True)
class ClientHello:
    """First message of a version 2 client."""

    options: Options
    resume: Resume | None = None
    #: Whether its sound is a live one, of which nobody wants to hear what is old.
    live: bool = False
    #: Whether the face is to live on while the client sends nothing.
    idle_life: bool = False


@dataclass(frozen=True)
class Change:
    """New options for a running session, which goes on in a new epoch."""

    options: Options


@dataclass(frozen=True)
class Shown:
    """The last frame that the client has put on its screen, or has passed over."""

    epoch: int
    seq: int
    index: int
    #: False for a frame that the client has decoded, and whose time has not come yet.
    on_screen: bool = True


@dataclass(frozen=True)
class Flush:
    """The client has stopped speaking: finish the begun clip now, and not after the pause."""


@dataclass(frozen=True)
class Interrupt:
    """Everything that waits or is under way is to be dropped: somebody speaks over the avatar."""


@dataclass(frozen=True)
class SayText:
    """A text that the avatar is to speak."""

    text: str
    #: The engine's name of a voice. Empty: the server's usual one.
    voice: str
    #: The client's name for it.
    id: str


@dataclass(frozen=True)
class Record:
    """The session is to be recorded from now on, or no longer."""

    #: "start" or "stop".
    action: str


Control = ClientHello | Change | Shown | Flush | Interrupt | SayText | Record
#: Actions of Record.
RECORD_ACTIONS = ("start", "stop")


def parse_control(text: str) -> Control | None:
    """One JSON text of a version 2 client. None for a type that this version does not know.

    Raises:
        BrowserError: "bad_message" or "bad_option".
    """
    fields = _json_object(text)
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise BrowserError("bad_message", phrase("message_no_type"))
    if kind in ("shown", "taken"):
        epoch, seq, index = (_whole(fields, name, 0, 2**32 - 1) for name in ("epoch", "seq", "index"))
        return Shown(epoch, seq, index, on_screen=kind == "shown")
    if kind == "flush":
        return Flush()
    if kind == "hello":
        live, idle = fields.get("live") is True, _idle_life(fields.get("idle"))
        return ClientHello(_options(fields), _resume(fields.get("resume")), live, idle)
    if kind == "options":
        return Change(_options(fields))
    if kind == "say":
        return _say(fields)
    if kind == "record":
        if fields.get("action") not in RECORD_ACTIONS:
            raise BrowserError("bad_message", phrase("message_record", known=" or ".join(RECORD_ACTIONS)))
        return Record(fields["action"])
    return Interrupt() if kind == "interrupt" else None


def parse_options(fields: dict[str, str]) -> Options:
    """Options of a version 1 client, from the query of its address (`?avatar=ada&pose=wave`).

    Raises:
        BrowserError: "bad_option".
    """
    numbers = {name: _number(v) for name, v in fields.items() if name in ("fps", "sample_rate")}
    return _options({**fields, **numbers, "video": None})  # version 1 is JPEG


def _number(text: str) -> int | str:
    """The number that a text writes in decimal digits, else the text itself, which no option takes."""
    # `int` refuses thousands of digits, and no option has more than these.
    return int(text) if text.isdecimal() and len(text) <= 9 else text


def _options(fields: dict[str, Any]) -> Options:
    rate = _optional_whole(fields, "sample_rate", 1, 1_000_000)
    if rate is not None and rate not in SAMPLE_RATES:
        known = ", ".join(map(str, SAMPLE_RATES))
        raise BrowserError("bad_option", phrase("option_sample_rate", rate=rate, known=known))
    return Options(
        avatar=_optional_name(fields, "avatar"),
        pose=_optional_name(fields, "pose"),
        fps=_optional_whole(fields, "fps", 1, 120),
        sample_rate=rate,
        pcm=_pcm_format(fields),
        video=_video_codecs(fields.get("video")),
    )


def _say(fields: dict[str, Any]) -> SayText:
    text, voice, own_id = (fields.get(name, "") for name in ("text", "voice", "id"))
    if not isinstance(text, str) or not 1 <= len(text) <= MAX_SAY_CHARS:
        raise BrowserError("bad_message", phrase("message_say_text", most=MAX_SAY_CHARS))
    if not isinstance(own_id, str) or len(own_id) > MAX_ID_CHARS:
        raise BrowserError("bad_message", phrase("message_say_id", most=MAX_ID_CHARS))
    if not isinstance(voice, str) or (voice and not VOICE_NAME.fullmatch(voice)):
        raise BrowserError("bad_message", phrase("message_say_voice"))
    return SayText(text, voice, own_id)


def _pcm_format(fields: dict[str, Any]) -> str | None:
    value = fields.get("pcm")
    if value is not None and value not in PCM_FORMATS:
        raise BrowserError("bad_option", phrase("option_one_of", name="pcm", known=", ".join(PCM_FORMATS)))
    return value


def _video_codecs(names: object) -> tuple[str, ...] | None:
    """The codecs that a client names. One that is not known here is no error: it may be known elsewhere."""
    if names is None:
        return None
    if not isinstance(names, list) or len(names) > MOST_CODECS or not all(isinstance(n, str) for n in names):
        raise BrowserError("bad_option", phrase("option_video", most=MOST_CODECS))
    return tuple(name for name in names if name in CODECS)


def _idle_life(value: object) -> bool:
    if value not in (None, *IDLE_WAYS):
        raise BrowserError("bad_option", phrase("option_one_of", name="idle", known=", ".join(IDLE_WAYS)))
    return value == "life"


def _resume(fields: object) -> Resume | None:
    if fields is None:
        return None
    if not isinstance(fields, dict) or not isinstance(fields.get("token"), str):
        raise BrowserError("bad_message", phrase("message_resume"))
    return Resume(
        token=fields["token"],
        epoch=_whole(fields, "epoch", 0, 2**31),
        heard=_whole(fields, "heard", -1, 2**32 - 1),
        seen=(_whole(fields, "seen_seq", -1, 2**32 - 1), _whole(fields, "seen_index", -1, 2**16 - 1)),
        position=_whole(fields, "position", 0, 2**53),
    )


def _json_object(text: str) -> dict[str, Any]:
    if len(text) > MAX_TEXT_CHARS:
        raise BrowserError("bad_message", phrase("message_long", count=len(text), most=MAX_TEXT_CHARS))
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as err:
        raise BrowserError("bad_message", phrase("message_no_json")) from err
    if not isinstance(value, dict):
        raise BrowserError("bad_message", phrase("message_no_object"))
    return value


def _optional_name(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not 1 <= len(value) <= 64:
        raise BrowserError("bad_option", phrase("option_name", name=name))
    return value


def _optional_whole(fields: dict[str, Any], name: str, low: int, high: int) -> int | None:
    return None if fields.get(name) is None else _whole(fields, name, low, high, "bad_option")


def _whole(fields: dict[str, Any], name: str, low: int, high: int, code: str = "bad_message") -> int:
    value = fields.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise BrowserError(code, phrase("option_whole", name=name, low=low, high=high))
    return value
