"""Requests that no browser sends: each gets the documented answer, and none leaves a traceback in the log.

The end of `running` checks the log.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.conftest import Running, running

pytestmark = pytest.mark.process

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
}
#: A client's close with code 1000, under a mask of zeros.
CLOSE = b"\x88\x82\0\0\0\0\x03\xe8"
#: Statuses of requests that ask for no websocket.
ANSWERS = {200, 400, 404, 405, 414, 421, 431}

#: Text of visible ASCII characters, with the pieces that parsers of addresses stumble over.
MARKS = st.sampled_from([*"[]@:?#%;\\", "//", "[::1", "%00", "%ff", "%2e%2e/", "..", "9" * 4301, "x" * 9000])
PIECES = MARKS | st.sampled_from(["http://", "/avatars/", "/poses/live/", ".png", ".svg", "/ws"])
VISIBLE = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=20)
TARGETS = st.lists(PIECES | VISIBLE, max_size=8).map("".join)
VALUES = st.sampled_from(["9" * 4301, "-1", "0", "12", "24", "1e400", "%D9%A3", "%ed%a0%80", "[", "", "ada"])
QUERIES = st.lists(
    st.tuples(st.sampled_from(["fps", "sample_rate", "avatar", "pose", ""]), VALUES | TARGETS), max_size=5
).map(lambda pairs: "&".join(f"{name}={value}" for name, value in pairs))

with_a_gateway = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running() as run:
        yield run


def ask(run: Running, target: str, headers: list[tuple[str, str]] | None = None) -> bytes:
    """All that the gateway sends for a request, until the connection ends. It closes a websocket."""
    lines = [("Host", f"127.0.0.1:{run.settings.port}"), *(headers or [])]
    head = f"GET {target} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines) + "\r\n"
    with socket.create_connection(("127.0.0.1", run.settings.port), timeout=10) as sock:
        answer = b""
        try:
            sock.sendall(head.encode("latin-1"))
            while data := sock.recv(1 << 16):
                if not answer and data.startswith(b"HTTP/1.1 101"):
                    sock.sendall(CLOSE)
                answer += data
        except ConnectionError:  # the gateway closed while bytes of ours were on their way
            pass
        return answer


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def close_code(answer: bytes) -> int:
    """The code of the close message behind an accepted upgrade."""
    assert status_of(answer) == 101, answer
    messages = answer.partition(b"\r\n\r\n")[2]
    assert messages[0] == 0x88, messages
    return int.from_bytes(messages[2:4], "big")


@with_a_gateway
@given(TARGETS)
def test_any_address_gets_a_documented_status(server: Running, target: str) -> None:
    assert status_of(ask(server, target)) in ANSWERS


@with_a_gateway
@given(QUERIES)
def test_any_query_gets_a_documented_close_code(server: Running, query: str) -> None:
    answer = ask(server, f"/ws?{query}", [*UPGRADE.items()])
    if status_of(answer) in (400, 414):  # a line of more than 64 KiB, or no address at all
        return
    assert close_code(answer) in (1000, 1008)


def test_a_number_of_thousands_of_digits_is_a_bad_option(server: Running) -> None:
    for name in ("fps", "sample_rate"):
        answer = ask(server, f"/ws?{name}={'9' * 4301}", [*UPGRADE.items()])
        assert close_code(answer) == 1008
        assert b"bad_option: " + name.encode() in answer


@pytest.mark.parametrize("target", ["http://[", "x", "*", "http://evil.example/", "ftp://127.0.0.1/", "?a"])
def test_an_address_that_cannot_be_read_is_a_bad_request(server: Running, target: str) -> None:
    assert status_of(ask(server, target)) == 400


@pytest.mark.parametrize(
    "name", ["If-None-Match", "Host", "Origin", "Upgrade", "Cookie", "Sec-WebSocket-Key", "Connection"]
)
@pytest.mark.parametrize("upgrade", [False, True])
def test_a_header_that_comes_twice_is_answered(server: Running, name: str, upgrade: bool) -> None:
    headers = [*(UPGRADE.items() if upgrade else ()), (name, "a"), (name, "b")]
    answer = ask(server, "/", headers)
    assert status_of(answer) in ANSWERS | {101, 403, 426}


def test_cookies_of_other_programs_do_no_harm(server: Running) -> None:
    for size in (9_000, 60_000):
        cookies = ("Cookie", "a=" + "b" * size)
        answer = ask(server, "/", [cookies])
        assert status_of(answer) == 200 and b"<title>" in answer
        assert close_code(ask(server, "/ws", [*UPGRADE.items(), cookies])) == 1000


def test_a_head_of_a_request_is_bounded(server: Running) -> None:
    assert status_of(ask(server, "/", [("Cookie", "b" * 70_000)])) == 431
    assert status_of(ask(server, "/", [("X-Name", "b")] * 100)) == 431
