"""Bodies that are set aside before the websockets library reads a request: bytes in any pieces."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http_connection import takes_body
from gateway.request_body import MAX_HEAD, BodyIntake

HEAD = b"POST /face/avatars?name=a HTTP/1.1\r\nHost: a\r\n%s\r\nAccept: *\r\n\r\n"
THREE = b"Content-Length: 3\r\n\r\n"
BARE = b"POST /face/avatars?name=a HTTP/1.1\r\nHost: a\r\nAccept: *\r\n\r\n"


def fed(intake: BodyIntake, data: bytes, cuts: Sequence[int]) -> bytes:
    """The bytes for the library, of data that comes in pieces."""
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return b"".join(intake.feed(data[a:b]) for a, b in pairwise(places))


def body_of(intake: BodyIntake) -> bytes | None:
    """The body, or None while it is not whole."""
    loop = asyncio.new_event_loop()
    try:
        whole = intake.whole(loop)
        return whole.result() if whole.done() else None
    finally:
        loop.close()


@given(
    body=st.binary(min_size=1, max_size=300),
    cuts=st.lists(st.integers(0, 10**6), max_size=8),
    name=st.sampled_from([b"Content-Length", b"content-length", b"CONTENT-LENGTH"]),
    extra=st.binary(max_size=9),
)
def test_a_body_comes_whole_in_any_pieces(body: bytes, cuts: list[int], name: bytes, extra: bytes) -> None:
    intake = BodyIntake(takes_body)
    head = HEAD % (name + b": %d" % len(body))
    assert fed(intake, head + body + extra, cuts) == BARE
    assert intake.length == len(body) and body_of(intake) == body


@given(
    data=st.one_of(
        st.binary(max_size=400),
        st.binary(max_size=200).map(lambda tail: b"GET /avatars HTTP/1.1\r\n" + THREE + tail),
        st.binary(max_size=200).map(lambda tail: b"POST /tokens HTTP/1.1\r\n" + THREE + tail),
    ),
    cuts=st.lists(st.integers(0, 10**6), max_size=8),
)  # fmt: skip
def test_everything_else_reaches_the_library_as_it_came(data: bytes, cuts: list[int]) -> None:
    intake = BodyIntake(takes_body)
    assert data.startswith(fed(intake, data, cuts)) and intake.length == 0
    # A beginning that could still become a POST is held until that is known.
    rest = b"\r\n\r\n" + bytes(MAX_HEAD)
    assert fed(intake, rest, []).endswith(rest)


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 3\r\nContent-Length: 4", b"Content-Length: 3\r\nTransfer-Encoding: chunked",
        b"Content-Length: +3", b"Content-Length: 3, 3", b"Content-Length: -1", b"Content-Length: 1e3",
        b"Content-Length : 3\r\nContent-Length: 3", b"Transfer-Encoding: chunked",
        b"Content-Length: 9999999999999",
        b"X: 1\n Content-Length: 3",
    ],
)  # fmt: skip
def test_a_head_that_two_readers_could_read_differently_is_left_to_the_library(lines: bytes) -> None:
    """Request smuggling: the library refuses such a head."""
    intake = BodyIntake(takes_body)
    data = HEAD % lines + b"abc"
    assert fed(intake, data, []) == data and intake.length == 0


def test_a_body_is_dropped_after_its_answer() -> None:
    intake = BodyIntake(takes_body)
    intake.feed(HEAD % b"Content-Length: 9" + b"123")
    assert intake.holds_back
    intake.drop()
    assert intake.feed(b"456") == b"" and not intake.holds_back
