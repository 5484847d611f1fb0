"""Tokens never come into a log line, whoever logs it."""

from __future__ import annotations

import logging

import pytest

from protocol.process.logs import _OneLine
from protocol.process.redact import redact

PROGRAM = "eml_Zm9vYmFyMTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3"
SIGNED = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.c2lnbmF0dXJlLXNpZ25hdHVyZQ"


@pytest.mark.parametrize("secret", [PROGRAM, SIGNED, "shortpass"])
@pytest.mark.parametrize(
    "line",
    [
        "< GET /ws?token={} HTTP/1.1", "< GET /ws?avatar=ada&token={}&fps=24 HTTP/1.1", "/?TOKEN%3D{}",
        "< Authorization: Bearer {}", "< authorization: Basic {}", "< Cookie: a=b; session={}",
        "Headers([('Authorization', 'x'), 'Authorization': 'Bearer {}'])", "bearer {}",
        "< Sec-WebSocket-Protocol: echomimic-live.v2, echomimic-live.token.{}",
        "echomimic-live.token.{}, echomimic-live.v2",
        "invalid HTTP request line: GET /?token={}",
    ],
)  # fmt: skip
def test_carried_tokens_are_blotted_out(line: str, secret: str) -> None:
    assert secret not in redact(line.format(secret))


@pytest.mark.parametrize("secret", [PROGRAM, SIGNED])
@pytest.mark.parametrize("line", ["{}", "name {} is unknown", "'{}'", "x={};", "({})", "/path/{}/x"])
def test_tokens_are_known_by_their_form(line: str, secret: str) -> None:
    assert secret not in redact(line.format(secret))
    assert secret[:-1] not in redact(line.format(secret[:-1]))


@pytest.mark.parametrize(
    "line",
    ["session 0a1b begins: version 2, avatar ada", "the token file was read again", "serving on http://x:1",
     "nobody new is let in: the token file /x/t.json is a link", "token studio: revoked", "eml_", "emlyn"],
)  # fmt: skip
def test_other_lines_stay(line: str) -> None:
    assert redact(line) == line


def test_the_log_of_the_websocket_library_has_no_queries() -> None:
    percent = "".join(f"%{ord(c):02x}" for c in PROGRAM)
    record = logging.LogRecord("websockets.server", 10, "", 0, "< GET /ws?x=%s HTTP/1.1", (percent,), None)
    assert percent not in _OneLine("gateway").format(record)


def test_errors_are_blotted_out_too() -> None:
    try:
        raise ValueError(f"invalid HTTP request line: GET /?token={PROGRAM}")
    except ValueError as error:
        fault = (type(error), error, error.__traceback__)
        record = logging.LogRecord("any", 40, "", 0, "opening handshake failed", (), fault)
    line = _OneLine("gateway").format(record)
    assert PROGRAM not in line and "opening handshake failed" in line
