"""Messages as bytes: one or two parts of a ZeroMQ message.

The first part is a msgpack map: `kind`, `version`, every field by its name, and an array's `shape`. Five
kinds have a second part, a raw buffer: an array in little-endian C order, or a picture.

`decode` compares sizes before it builds anything from bytes. There is no pickle here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt

from protocol.wire.limits import (
    MAX_BUFFER_BYTES,
    MAX_HEADER_BYTES,
    MAX_HELD_JOBS,
    MAX_INFO_CHARS,
    MAX_INFO_LIST,
    MAX_METRIC_ENTRIES,
    MAX_PARTS,
    MAX_PICTURE_BYTES,
    MAX_STATUS_BYTES,
    ProtocolError,
    check_int,
    show,
)
from protocol.wire.messages import (
    Ack,
    Bye,
    Clip,
    Close,
    Failed,
    Frame,
    Heartbeat,
    Hello,
    Latents,
    Message,
    Pcm,
    Ready,
    Received,
    Sentence,
    SpokenPart,
    Status,
)

#: Of the messages between processes. Both sides of a hop must speak the same one.
VERSION = 1

_CLASSES: tuple[type[Any], ...] = (
    Pcm, Clip, Latents, Frame, Close, Failed, Status, Ready, Ack, Heartbeat, Bye, Hello, Received,
    Sentence, SpokenPart,
)  # fmt: skip
_BY_KIND: dict[str, type[Any]] = {cls.__name__.lower(): cls for cls in _CLASSES}
#: Of each kind with an array: the field, its type and its number of dimensions.
_ARRAYS: dict[str, tuple[str, type[np.generic], int]] = {
    "pcm": ("samples", np.float32, 1),
    "clip": ("tokens", np.float16, 3),
    "latents": ("latents", np.float16, 4),
    "spokenpart": ("samples", np.float32, 1),
}
#: The field of each kind that travels as a raw buffer.
_BUFFERS = {kind: array[0] for kind, array in _ARRAYS.items()} | {"frame": "data"}
_HEADER_FIELDS = {
    kind: tuple(f.name for f in fields(cls) if f.name != _BUFFERS.get(kind)) for kind, cls in _BY_KIND.items()
}


def encode(message: Message) -> list[bytes | memoryview]:
    """The parts of `message`. A buffer is a view: send or copy it before the array is written again.

    Raises:
        ProtocolError: the header is too large.
    """
    kind = type(message).__name__.lower()
    header: dict[str, Any] = {"kind": kind, "version": VERSION}
    for name in _HEADER_FIELDS[kind]:
        header[name] = getattr(message, name)
    parts: list[bytes | memoryview] = []
    if kind in _ARRAYS:
        array = np.ascontiguousarray(getattr(message, _ARRAYS[kind][0]))
        header["shape"] = list(array.shape)
        parts.append(array.reshape(-1).view(np.uint8).data)
    elif isinstance(message, Frame):
        parts.append(message.data)
    packed: bytes = msgpack.packb(header)
    if len(packed) > (MAX_STATUS_BYTES if kind == "status" else MAX_HEADER_BYTES):
        raise ProtocolError(f"{kind}: header of {len(packed)} bytes is too large")
    return [packed, *parts]


def decode(parts: Sequence[bytes | memoryview]) -> Message:
    """The message that has these parts. Its array is a read-only view of the second one.

    Raises:
        ProtocolError: `encode` could not have made these bytes. Hostile bytes raise nothing else.
    """
    if not 1 <= len(parts) <= MAX_PARTS:
        raise ProtocolError(f"{len(parts)} parts: a message has 1 to {MAX_PARTS}")
    header = _unpack(parts[0])
    kind = header.pop("kind", None)
    version = header.pop("version", None)
    if version != VERSION or type(version) is not int:
        raise ProtocolError(f"version: {show(version)}, this side speaks {VERSION}")
    if not isinstance(kind, str) or kind not in _BY_KIND:
        raise ProtocolError(f"kind: {show(kind)} is unknown")
    if kind != "status" and len(parts[0]) > MAX_HEADER_BYTES:
        raise ProtocolError(f"{kind}: header of {len(parts[0])} bytes is too large")
    if len(parts) != 1 + (kind in _BUFFERS):
        raise ProtocolError(f"{kind}: {len(parts)} parts, not {1 + (kind in _BUFFERS)}")
    # the buffer joins the header's fields, and the class checks the rest
    if kind in _ARRAYS:
        header[_ARRAYS[kind][0]] = _view(kind, header.pop("shape", None), parts[1])
    elif kind == "frame":
        header["data"] = bytes(parts[1]) if len(parts[1]) <= MAX_PICTURE_BYTES else None
    elif kind == "heartbeat" and isinstance(header.get("jobs"), list):
        header["jobs"] = tuple(header["jobs"])
    expected = len(_HEADER_FIELDS[kind]) + (kind in _BUFFERS)
    if len(header) != expected or any(name not in header for name in _HEADER_FIELDS[kind]):
        raise ProtocolError(f"{kind}: its fields are {', '.join(_HEADER_FIELDS[kind]) or 'none'}")
    message: Message = _BY_KIND[kind](**header)
    return message


def _unpack(data: bytes | memoryview) -> dict[str, Any]:
    if len(data) > MAX_STATUS_BYTES:
        raise ProtocolError(f"header of {len(data)} bytes is too large")
    try:
        header = msgpack.unpackb(
            data, raw=False, strict_map_key=True, max_str_len=4 * MAX_INFO_CHARS,
            max_bin_len=0, max_ext_len=0, max_array_len=max(MAX_HELD_JOBS, MAX_INFO_LIST),
            max_map_len=MAX_METRIC_ENTRIES,
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
        raise ProtocolError(f"{kind}: shape {show(shape)} has not {dimensions} sizes")
    for size in shape:
        check_int("shape", size, 0, MAX_BUFFER_BYTES)
    if len(data) > MAX_BUFFER_BYTES or len(data) != math.prod(shape) * np.dtype(dtype).itemsize:
        raise ProtocolError(f"{name}: {len(data)} bytes do not fill the shape {shape}")
    array = np.frombuffer(data, dtype=dtype).reshape(shape)
    array.flags.writeable = False  # the parts may be shared with others
    return array
