"""The limits of messages, and the checks that hold values to them.

A check takes a field's name, for its error, and a value of any type. It raises ProtocolError.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

#: Header of every message but Status.
MAX_HEADER_BYTES = 4096
#: Header of a Status.
MAX_STATUS_BYTES = 65536
#: Raw buffer of an array.
MAX_BUFFER_BYTES = 16 * 2**20
#: A picture as JPEG, or as a coded frame.
MAX_PICTURE_BYTES = 4 * 2**20
#: Parts of a ZeroMQ message without the address: a header, and a buffer for some kinds.
MAX_PARTS = 2

MAX_CLIP_FRAMES = 64
#: Samples of a Pcm message.
MAX_PCM_SAMPLES = 2**20
#: Width of an audio token: that of Whisper tiny. It has no other.
TOKEN_WIDTH = 384
#: Audio tokens that one frame attends to.
MAX_FRAME_TOKENS = 256
MAX_LATENT_CHANNELS = 32
#: Height or width of latents.
MAX_LATENT_SIDE = 512
#: Height or width of a frame, in pixels.
MAX_FRAME_SIDE = 8192
MAX_FPS = 60
#: Jobs that a worker may ask for at once.
MAX_CREDIT = 64
#: Job numbers in one Heartbeat.
MAX_HELD_JOBS = 256
#: Characters of one sentence that is to be spoken: its UTF-8 fits into a header.
MAX_SENTENCE_CHARS = 600
#: Samples of one piece of a spoken sentence.
MAX_SPOKEN_SAMPLES = 2**17
#: Characters of a failure's reason.
MAX_REASON_CHARS = 500

#: Entries of `Status.info`.
MAX_INFO_ENTRIES = 64
#: Entries of a list in it.
MAX_INFO_LIST = 256
#: Characters of a text in it.
MAX_INFO_CHARS = 1024
#: Entries of `Status.metrics`.
MAX_METRIC_ENTRIES = 512
#: Names of metrics that are remembered as good ones, at least.
MAX_KNOWN_METRICS = 4096

#: The largest integer that JavaScript and float64 keep exactly.
MAX_COUNT = 2**53
#: A job's number has 8 bytes.
MAX_JOB = 2**64 - 1

_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: Names of metrics that were looked at. The same ones come twice a second.
_known_metrics: set[str] = set()
_METRIC = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,95}")


class ProtocolError(ValueError):
    """A message breaks the protocol, or bytes that should be one. The text names the field and the reason."""


def check_id(name: str, value: object) -> None:
    """A name: 1 to 64 letters, digits, `_`, `.` or `-`."""
    if not isinstance(value, str) or _ID.fullmatch(value) is None:
        raise ProtocolError(f"{name}: {show(value)} is not 1 to 64 letters, digits, '_', '.' or '-'")


def check_int(name: str, value: object, low: int, high: int) -> None:
    """An integer from `low` to `high`, both included. True and False are none."""
    if type(value) is not int or not low <= value <= high:
        raise ProtocolError(f"{name}: {show(value)} is not an integer from {low} to {high}")


def check_bool(name: str, value: object) -> None:
    """True or False."""
    if type(value) is not bool:
        raise ProtocolError(f"{name}: {show(value)} is not true or false")


def check_text(name: str, value: object, limit: int) -> None:
    """Text of at most `limit` characters that can be written as UTF-8."""
    if not isinstance(value, str) or len(value) > limit:
        raise ProtocolError(f"{name}: {show(value)} is not text of at most {limit} characters")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise ProtocolError(f"{name}: {show(value)} cannot be written as UTF-8") from error


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """One of these texts."""
    if not isinstance(value, str) or value not in choices:
        raise ProtocolError(f"{name}: {show(value)} is not one of {', '.join(choices)}")


def check_array(name: str, value: object, dtype: type[np.generic], limits: Sequence[tuple[int, int]]) -> None:
    """An array of type `dtype`, with the least and the largest size of each axis in `limits`."""
    if not isinstance(value, np.ndarray) or value.dtype != dtype or value.ndim != len(limits):
        found = f"{value.dtype}{value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
        raise ProtocolError(f"{name}: {found} is not a {len(limits)}-dimensional {dtype.__name__} array")
    for axis, (size, (low, high)) in enumerate(zip(value.shape, limits, strict=True)):
        if not low <= size <= high:
            raise ProtocolError(f"{name}: axis {axis} has size {size}, not {low} to {high}")
    if value.nbytes > MAX_BUFFER_BYTES:
        raise ProtocolError(f"{name}: {value.nbytes} bytes, more than {MAX_BUFFER_BYTES}")


def show(value: object) -> str:
    """A short description of an untrusted value. Containers show their type alone: they may be huge."""
    text = repr(value) if isinstance(value, (str, int, float, bool, type(None))) else type(value).__name__
    return text if len(text) <= 80 else text[:77] + "..."


def check_info(info: object) -> None:
    """A map of at most MAX_INFO_ENTRIES names to text, numbers, truth values or lists of text."""
    if not isinstance(info, dict) or len(info) > MAX_INFO_ENTRIES:
        raise ProtocolError(f"info: not a map of at most {MAX_INFO_ENTRIES} entries")
    for name, value in info.items():
        check_id("info", name)
        _check_info_value(f"info.{name}", value)


def _check_info_value(name: str, value: object) -> None:
    if isinstance(value, list):
        if len(value) > MAX_INFO_LIST:
            raise ProtocolError(f"{name}: more than {MAX_INFO_LIST} entries")
        for text in value:
            check_text(name, text, MAX_INFO_CHARS)
    elif isinstance(value, str):
        check_text(name, value, MAX_INFO_CHARS)
    elif type(value) is float:
        if not math.isfinite(value):
            raise ProtocolError(f"{name}: {value} is not finite")
    elif type(value) is int:
        check_int(name, value, -MAX_COUNT, MAX_COUNT)
    else:
        check_bool(name, value)


def check_metrics(metrics: object) -> None:
    """A map of at most MAX_METRIC_ENTRIES metric names to finite numbers."""
    if not isinstance(metrics, dict) or len(metrics) > MAX_METRIC_ENTRIES:
        raise ProtocolError(f"metrics: not a map of at most {MAX_METRIC_ENTRIES} entries")
    known = metrics.keys() <= _known_metrics and set(map(type, metrics.values())) <= {int, float}
    if known and all(map(math.isfinite, metrics.values())):
        return
    for name, number in metrics.items():
        if not isinstance(name, str) or _METRIC.fullmatch(name) is None:
            raise ProtocolError(f"metrics: {show(name)} is not a metric's name")
        if type(number) not in (int, float) or not math.isfinite(number):
            raise ProtocolError(f"metrics.{name}: {show(number)} is not a finite number")
    if len(_known_metrics) < MAX_KNOWN_METRICS:
        _known_metrics.update(metrics)


def shorten(text: str, limit: int = MAX_REASON_CHARS) -> str:
    """`text` on one line, cut to `limit` characters, as `Failed.reason` and `Status.info` take it."""
    line = " ".join(text.encode("utf-8", "replace").decode().split())
    return line if len(line) <= limit else line[: limit - 3] + "..."
