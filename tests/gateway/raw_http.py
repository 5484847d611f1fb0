"""Requests written by hand, so that nothing between a test and the gateway makes them proper."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from websockets.datastructures import Headers

#: Headers of a websocket upgrade.
UPGRADE = (
    ("Upgrade", "websocket"),
    ("Connection", "Upgrade"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
)


@dataclass(frozen=True)
class RawReply:
    """A response. Status 0: the gateway closed the connection without one."""

    status: int
    headers: Headers = field(default_factory=Headers)
    text: str = ""


def exchange(
    port: int,
    target: str = "/",
    headers: Sequence[tuple[str, str]] = (),
    *,
    host: str | None = "",
    method: str = "GET",
    to: str = "127.0.0.1",
    source: str = "",
    body: bytes = b"",
) -> RawReply:
    """Send one request and read its response. Of an accepted upgrade it reads the head alone.

    Args:
        port: of the gateway.
        target: the address in the first line.
        headers: besides Host.
        host: the Host header. Empty: the address that is connected to. None: no such header.
        method: in the first line.
        to: the address to connect to.
        source: the address to connect from. Empty: the system's choice.
        body: bytes behind the head.
    """
    shown = f"[{to}]" if ":" in to else to
    lines = [] if host is None else [("Host", host or f"{shown}:{port}")]
    text = "".join(f"{name}: {value}\r\n" for name, value in [*lines, *headers])
    with socket.create_connection((to, port), 10, (source, 0) if source else None) as sock:
        answer = b""
        try:
            sock.sendall(f"{method} {target} HTTP/1.1\r\n{text}\r\n".encode("latin-1") + body)
            while data := sock.recv(1 << 16):
                answer += data
                if answer.startswith(b"HTTP/1.1 101") and b"\r\n\r\n" in answer:
                    break
        except ConnectionError:  # the gateway closed while bytes of ours were on their way
            pass
    return read_reply(answer)


def read_reply(answer: bytes) -> RawReply:
    """The parts of a response's bytes."""
    if not answer:
        return RawReply(0)
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *rest = head.decode("latin-1").split("\r\n")
    fields = Headers([(name, value) for name, _, value in (line.partition(": ") for line in rest)])
    return RawReply(int(first.split(" ", 2)[1]), fields, body.decode("utf-8", "replace"))
