from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
import tracemalloc
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.process.settings import ROOT
from protocol.wire import limits
from protocol.wire.codec import decode, encode
from protocol.wire.limits import ProtocolError, shorten
from protocol.wire.messages import Ack, Frame, Heartbeat, Latents, Message, Pcm, Ready, Status
from tests.protocol.samples import EXAMPLES, messages, one_clip, one_frame, one_latents, one_pcm


def same(a: Message, b: Message) -> bool:
    """Equal in type and every field, arrays bit by bit."""
    if type(a) is not type(b):
        return False
    for f in dataclasses.fields(a):
        x, y = getattr(a, f.name), getattr(b, f.name)
        if isinstance(x, np.ndarray):
            if x.dtype != y.dtype or x.shape != y.shape or x.tobytes() != y.tobytes():
                return False
        elif x != y or type(x) is not type(y):
            return False
    return True


@given(messages)
def test_round_trip(message: Message) -> None:
    assert same(decode([bytes(part) for part in encode(message)]), message)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda m: type(m).__name__)
def test_every_kind_round_trips_and_accepts_views(message: Message) -> None:
    assert same(decode([memoryview(bytes(part)) for part in encode(message)]), message)


def test_every_kind_has_an_example() -> None:
    assert {type(m) for m in EXAMPLES} == set(Message.__args__)


def test_decoded_arrays_are_read_only_views() -> None:
    parts = [bytes(part) for part in encode(one_latents())]
    back = decode(parts)
    assert isinstance(back, Latents)
    assert not back.latents.flags.writeable and not back.latents.flags.owndata


def test_strided_arrays_are_sent_as_they_read() -> None:
    base = np.arange(2 * 4 * 6 * 6, dtype=np.float16).reshape(2, 4, 6, 6)
    message = Latents("s", 0, 0, 0, 24, base[:, :, ::2, ::3].transpose(0, 1, 3, 2))
    assert same(decode([bytes(p) for p in encode(message)]), message)


# ------------------------------------------------------------------ hostile bytes


def rejects(parts: list[bytes]) -> None:
    with pytest.raises(ProtocolError):
        decode(parts)


@given(st.lists(st.binary(max_size=300), max_size=4))
def test_random_bytes_raise_protocol_error_only(parts: list[bytes]) -> None:
    rejects(parts)


@settings(max_examples=150)
@given(messages, st.data())
def test_mutated_messages_decode_or_raise_protocol_error(message: Message, data: st.DataObject) -> None:
    parts = [bytearray(part) for part in encode(message)]
    for _ in range(data.draw(st.integers(1, 4))):
        part = parts[data.draw(st.integers(0, len(parts) - 1))]
        action = data.draw(st.sampled_from(["flip", "cut", "insert", "drop", "twice"]))
        at = data.draw(st.integers(0, max(0, len(part) - 1)))
        if action == "flip" and part:
            part[at] ^= data.draw(st.integers(1, 255))
        elif action == "cut":
            del part[at:]
        elif action == "insert":
            part[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        elif action == "drop" and len(parts) > 1:
            parts.pop()
        else:
            parts.append(bytearray(part))
    try:
        back = decode([bytes(part) for part in parts])
    except ProtocolError:
        return
    assert same(decode([bytes(p) for p in encode(back)]), back)  # what it accepts is a real message


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=150)
@given(st.sampled_from(EXAMPLES), st.data())
def test_wrong_values_in_headers_raise_protocol_error_only(message: Message, data: st.DataObject) -> None:
    parts = [bytes(part) for part in encode(message)]
    header: dict[str, Any] = msgpack.unpackb(parts[0])
    key = data.draw(st.sampled_from([*header, "surplus"]))
    header[key] = data.draw(json_like)
    try:
        back = decode([msgpack.packb(header), *parts[1:]])
    except ProtocolError:
        return
    assert type(back) is type(message) or key == "kind"


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a", b"\xdc\x00\x01", b"\xdd\x00\x00\x00\x01"])
@pytest.mark.parametrize("depth", [10, 500, 5000, 16000])
def test_deep_nesting(opening: bytes, depth: int) -> None:
    rejects([(opening * depth + b"\xc0")[: limits.MAX_STATUS_BYTES]])
    rejects([b"\x81\xa4kind" + (opening * depth + b"\xc0")[: limits.MAX_STATUS_BYTES - 6]])


def test_deep_nesting_near_the_stack_limit() -> None:
    def deeper(n: int) -> None:
        if n:
            deeper(n - 1)
        else:
            rejects([b"\x91" * 4000 + b"\xc0"])

    deeper(sys.getrecursionlimit() - 300)


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdd\xff\xff\xff\xff",  # an array said to have 4 G entries
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xc9\xff\xff\xff\xff\x01",
        b"\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\x81\xa4kind" + b"\xdc\xff\xff" + b"\xc0" * 65000,
        b"\xdc\xff\x00" + b"\x90" * 65280,
        b"\x81" * 60000,
        b"\x82\xa4kind\xa3ack\xa4kind\xa3ack",
        b"",
    ],
)
def test_bombs_cost_little_memory_and_time(bomb: bytes) -> None:
    begin = time.thread_time()  # of this thread alone, since other work on the machine is not the bomb's
    tracemalloc.start()
    rejects([bomb])
    rejects([bomb, b"x"])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * 2**20
    assert time.thread_time() - begin < 0.5


def test_huge_parts_are_refused_unread() -> None:
    rejects([b"\x80" + bytes(64 * 2**20)])
    parts = [bytes(part) for part in encode(one_latents())]
    rejects([parts[0], bytes(64 * 2**20)])
    rejects([bytes(encode(one_frame())[0]), bytes(limits.MAX_PICTURE_BYTES + 1)])


def header_of(message: Message, **changes: Any) -> list[bytes]:
    parts = [bytes(part) for part in encode(message)]
    return [msgpack.packb(msgpack.unpackb(parts[0]) | changes), *parts[1:]]


@pytest.mark.parametrize(
    ("message", "changes", "named"),
    [
        (one_pcm(), {"session": "a/b"}, "session"),
        (one_pcm(), {"session": ""}, "session"),
        (one_pcm(), {"session": "x" * 65}, "session"),
        (one_pcm(), {"session": "x\n"}, "session"),
        (one_pcm(), {"pts": -1}, "pts"),
        (one_pcm(), {"pts": 2**53 + 1}, "pts"),
        (one_pcm(), {"pts": 1.0}, "pts"),
        (one_pcm(), {"flush": 1}, "flush"),
        (one_pcm(), {"fps": True}, "fps"),
        (one_pcm(), {"sample_rate": 10}, "sample_rate"),
        (one_pcm(), {"version": 2}, "version"),
        (one_pcm(), {"version": True}, "version"),
        (one_pcm(), {"kind": "pickle"}, "kind"),
        (one_pcm(), {"shape": [799]}, "samples"),
        (one_pcm(), {"shape": [-800]}, "shape"),
        (one_pcm(), {"shape": [800, 1]}, "shape"),
        (one_clip(), {"shape": [12, 5 * 384, 1]}, "tokens"),
        (one_latents(), {"shape": [12, 4, 0, 8]}, "latents"),
        (one_latents(), {"shape": [2**30, 2**30, 2**30, 2**30]}, "shape"),
        (one_frame(), {"index": 1}, "index"),
        (Ack(1), {"job": 0}, "job"),
        (Heartbeat((1,)), {"jobs": [1.5]}, "jobs"),
        (Heartbeat((1,)), {"jobs": "11"}, "jobs"),
        (Heartbeat((1,)), {"rests": 1}, "rests"),
        (Ready("s", "w", 2), {"credit": 65}, "credit"),
        (Ready("s", "w", 2), {"extra": 1}, "ready"),
        (Status("s", "w", True, {}, {}), {"info": {"a": {"b": 1}}}, "info"),
        (Status("s", "w", True, {}, {}), {"info": {"a": [1]}}, "info"),
        (Status("s", "w", True, {}, {}), {"metrics": {"a": float("nan")}}, "metrics"),
        (Status("s", "w", True, {}, {}), {"metrics": {"a b": 1.0}}, "metrics"),
        (Status("s", "w", True, {}, {}), {"metrics": {"a": True}}, "metrics"),
    ],
)
def test_errors_name_the_field(message: Message, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(ProtocolError, match=named):
        decode(header_of(message, **changes))


def test_missing_field_and_wrong_number_of_parts() -> None:
    parts = [bytes(part) for part in encode(one_frame())]
    header = msgpack.unpackb(parts[0])
    del header["pts"]
    rejects([msgpack.packb(header), parts[1]])
    rejects([parts[0]])
    rejects([parts[0], parts[1], b""])
    rejects([])
    rejects([bytes(encode(Ack(1))[0]), b""])


def test_only_status_may_have_a_large_header() -> None:
    big = Status("s", "w", True, {"a": ["x" * 1000] * 10}, {})
    assert same(decode([bytes(p) for p in encode(big)]), big)
    rejects(header_of(Ack(1), filler="x" * 4000, more="y" * 1000))
    with pytest.raises(ProtocolError, match="too large"):
        encode(Status("s", "w", True, {f"k{i}": ["x" * 1024] * 2 for i in range(40)}, {}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pcm_that_is_not_finite_is_refused(value: float) -> None:
    samples = np.zeros(100, np.float32)
    samples[50] = value
    with pytest.raises(ProtocolError, match="finite"):
        Pcm("s", 0, 0, 0, 16000, 24, 12, "a", "p", False, samples)


def test_the_sender_is_held_to_the_same_limits() -> None:
    with pytest.raises(ProtocolError, match="float64"):
        Pcm("s", 0, 0, 0, 16000, 24, 12, "a", "p", False, np.zeros(3))  # type: ignore[arg-type]
    with pytest.raises(ProtocolError, match="samples"):
        Pcm("s", 0, 0, 0, 16000, 24, 12, "a", "p", False, np.zeros(0, np.float32))
    with pytest.raises(ProtocolError, match="data"):
        Frame("s", 0, 0, 0, 1, 0, 8, 8, b"")
    with pytest.raises(ProtocolError, match="UTF-8"):
        Status("s", "w", True, {"a": "\ud800"}, {})
    cyclic: list[Any] = []
    cyclic.append(cyclic)
    with pytest.raises(ProtocolError, match="list"):
        Status("s", "w", True, {"a": cyclic}, {})


@given(st.text())
def test_shortened_text_always_fits(text: str) -> None:
    short = shorten(text)
    assert len(short) <= limits.MAX_REASON_CHARS and "\n" not in short
    Status("s", "w", True, {"notice": short}, {})


def test_the_messages_need_neither_torch_nor_zmq() -> None:
    code = (
        "import sys, protocol.wire.messages; print([m for m in ('torch', 'zmq', 'yaml') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), True, "1", None])
def test_figures_are_checked_though_their_names_are_known(bad: Any) -> None:
    good = {"known_total": 1.0, "known_seconds": 2}
    for _ in range(2):
        Status("s", "w", True, {}, good)
    with pytest.raises(ProtocolError, match="known_seconds"):
        Status("s", "w", True, {}, good | {"known_seconds": bad})
    with pytest.raises(ProtocolError, match="a b"):
        Status("s", "w", True, {}, good | {"a b": 1.0})
