"""`python -m scripts.asyncapi`: writes protocol/asyncapi.yaml, the browser wire for programs, from the code.

    python -m scripts.asyncapi            writes the file
    python -m scripts.asyncapi --check    exit status 1 if the file differs from the code

The format is AsyncAPI 3.0 (https://www.asyncapi.com/docs/reference/specification/v3.0.0). The SPEC explains
the messages. This file names their fields and types.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from gateway.core.audio_log import ClipShape
from gateway.core.options import SessionLimits, SessionOptions
from gateway.core.says import SAY_OUTCOMES
from gateway.core.session import SessionCore
from gateway.recording.recordings import told
from gateway.recording.store import Recording
from gateway.texts import ready_fields, status_fields
from protocol.process.settings import ROOT
from protocol.wire.browser import CLOSE_CODES, KIND_AUDIO, KIND_CODED, KIND_FRAME, SUBPROTOCOL_V2
from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.controls import (
    IDLE_WAYS,
    MAX_SAY_CHARS,
    MOST_CODECS,
    PCM_FORMATS,
    RECORD_ACTIONS,
    SAMPLE_RATES,
    VOICE_NAME,
    Options,
    Shown,
)

FILE = ROOT / "protocol" / "asyncapi.yaml"
_TYPES = {str: "string", int: "integer", float: "number", bool: "boolean", type(None): "null"}
#: The field `state` of `recording`.
RECORDING_STATE = {"state": {"enum": ["started", "finished", "failed"]}}
#: The object `resume` of `hello`, by the names on the wire.
RESUME_FIELDS = {
    "token": "string",
    "epoch": "integer",
    "heard": "integer",
    "seen_seq": "integer",
    "seen_index": "integer",
    "position": "integer",
}


def document() -> dict[str, Any]:
    """The whole document."""
    up, down = _texts_up(), _texts_down()
    binary = {
        "pcm": ("up", "Samples of the client, float32 or int16, little-endian."),
        "frame": ("down", f"Kind {KIND_FRAME}: a header of 24 bytes, then a JPEG."),
        "coded_frame": ("down", f"Kind {KIND_CODED}: a header of 24 bytes, then a frame of H.264 or VP8."),
        "audio": ("down", f"Kind {KIND_AUDIO}: a header of 32 bytes, then the PCM of a clip."),
    }
    messages = {name: _text_message(name, schema) for name, schema in {**up, **down}.items()}
    for name, (_, summary) in binary.items():
        messages[name] = {
            "contentType": "application/octet-stream",
            "summary": summary,
            "payload": {"type": "string", "format": "binary"},
        }
    sent = [*up, *(name for name, (way, _) in binary.items() if way == "up")]
    received = [name for name in messages if name not in sent]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "echomimic-live: browser and gateway",
            "version": SUBPROTOCOL_V2,
            "description": "Made by `python -m scripts.asyncapi`. SPEC.md explains the messages.",
        },
        "channels": {
            "session": {
                "address": "/ws",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {"ws": {"method": "GET"}},
            }
        },
        "operations": {
            "speak": _operation("receive", sent),
            "watch": _operation("send", received),
        },
        "components": {"messages": messages},
    }


def _operation(action: str, names: Sequence[str]) -> dict[str, Any]:
    """An operation of the gateway, on the messages that it receives or sends."""
    return {
        "action": action,
        "channel": {"$ref": "#/channels/session"},
        "messages": [{"$ref": f"#/channels/session/messages/{name}"} for name in names],
    }


def _text_message(name: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    payload = {"type": "object", "required": ["type"], "properties": {"type": {"const": name}, **properties}}
    return {"contentType": "application/json", "payload": payload}


def _texts_up() -> dict[str, dict[str, Any]]:
    options = _schemas_of(Options)
    options["sample_rate"] = {"enum": list(SAMPLE_RATES)}
    options["pcm"] = {"enum": list(PCM_FORMATS)}
    options["video"] = {"type": "array", "items": {"type": "string"}, "maxItems": MOST_CODECS}
    resume = {
        "type": "object",
        "required": list(RESUME_FIELDS),
        "properties": {name: {"type": kind} for name, kind in RESUME_FIELDS.items()},
    }
    return {
        "hello": {
            **options,
            "idle": {"enum": list(IDLE_WAYS)},
            "resume": resume,
        },
        "options": options,
        "shown": _schemas_of(Shown),
        "flush": {},
        "interrupt": {},
        "record": {"action": {"enum": list(RECORD_ACTIONS)}},
        "say": {
            "text": {"type": "string", "minLength": 1, "maxLength": MAX_SAY_CHARS},
            "voice": {"type": "string", "pattern": f"^{VOICE_NAME.pattern}$"},
            "id": {"type": "string", "maxLength": 64},
        },
    }


def _texts_down() -> dict[str, dict[str, Any]]:
    shape = ClipShape(24, 12)
    core = SessionCore("a", 2, SessionOptions("a", "b", shape, SAMPLE_RATE), SessionLimits(), 0.0)
    place = {"epoch": {"type": "integer"}, "pts": {"type": "integer"}}
    return {
        "ready": _schemas_of_values(ready_fields(core, "", "", False)),
        "status": _schemas_of_values(status_fields(core, "", {}, 0.0)),
        "interrupted": {
            **place,
            "pts": {"type": ["integer", "null"]},
            "position": {"type": "integer"},
        },
        "speech_started": dict(place),
        "speech_ended": dict(place),
        "idle": dict(place),
        "say_started": {"id": {"type": "string"}, **place},
        "say_ended": {
            "id": {"type": "string"},
            **place,
            "pts": {"type": ["integer", "null"]},
            "outcome": {"enum": list(SAY_OUTCOMES)},
            "message": {"type": "string"},
            "phrase": {"type": "object"},
        },
        "credit": {"until": {"type": "integer"}},
        "recording": _schemas_of_values(told(Recording("a.mp4", "", "", 0.0))) | RECORDING_STATE,
        "error": {
            "code": {"enum": sorted(CLOSE_CODES)},
            "message": {"type": "string"},
            "phrase": {"type": "object"},
        },
    }


def _schemas_of(cls: type) -> dict[str, Any]:
    """The schema of each field of a dataclass of plain values. A field that may be None may be missing."""
    return {name: {"type": _type_name(hint)} for name, hint in typing.get_type_hints(cls).items()}


def _type_name(hint: Any) -> str:
    if isinstance(hint, types.UnionType):
        (hint,) = [part for part in hint.__args__ if part is not type(None)]
    return "array" if typing.get_origin(hint) is tuple else _TYPES[hint]


def _schemas_of_values(fields: Mapping[str, object]) -> dict[str, Any]:
    return {name: _schema_of_value(value) for name, value in fields.items()}


def _schema_of_value(value: object) -> dict[str, Any]:
    if isinstance(value, list):
        return {"type": "array", "items": {"type": "string"}}
    return {"type": "object"} if isinstance(value, dict) else {"type": _TYPES[type(value)]}


def text() -> str:
    """The file's text."""
    return yaml.safe_dump(document(), sort_keys=False, width=110, default_flow_style=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Write or check the file. Returns the exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments == ["--check"]:
        if FILE.is_file() and FILE.read_text() == text():
            return 0
        print(f"{FILE} is not what the code says; run python -m scripts.asyncapi", file=sys.stderr)
        return 1
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    FILE.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
