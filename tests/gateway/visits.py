"""Clients with addresses of their own, who try to get past a gateway's door."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import socket
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from gateway.door.credentials import SUBPROTOCOL_PREFIX
from gateway.door.throttle import CYCLE
from gateway.door.token_file import new_token
from protocol.wire.browser import SUBPROTOCOL_V2
from tests.gateway.conftest import Running

_numbers = itertools.count(1)
V2 = [Subprotocol(SUBPROTOCOL_V2)]

#: Addresses that lead to something guarded if they are read carelessly.
TRICKS = [
    "/metrics/", "//metrics", "/./metrics", "/healthz/../metrics", "/%6detrics", "/metrics%00",
    "/metrics%2f", "/METRICS", "/healthz;/metrics", "/metrics;x", "/metrics?x=/healthz", "/metrics#x",
    "/ws/../metrics", "/index.html/../metrics", "/app.js/../avatars.json", "/%2e%2e/metrics",
    "/..;/metrics", "\\metrics", "/tokens/", "/avatars.json/", "//avatars.json",
    "/avatars/%2e%2e/avatars.json", "/avatars//amara.png", "/avatars/amara.png%00.svg",
    "/poses/../avatars/amara.png", "/avatars.json?token", "/metrics?token=", "/metrics?token[]=x",
    "http://127.0.0.1/metrics", "*", "metrics", "/ws", "/",
]  # fmt: skip


@dataclass
class Visit:
    """A client with an address of its own."""

    run: Running
    address: str

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, dict[str, str]]:
        """Status, text and headers of a plain request. `_` in a header's name stands for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.run.settings.port, timeout=10)
        sent = {"X-Forwarded-For": self.address, **{k.replace("_", "-"): v for k, v in headers.items()}}
        connection.request(method, path, headers=sent)
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        connection.close()
        return answer.status, text, {name.lower(): value for name, value in answer.getheaders()}

    def code(self, token: str | None, path: str = "/ws", **headers: str) -> str:
        """The refusal's code for a websocket with this token, after its upgrade was tried. Empty: let in."""
        if token is not None:
            headers = {"Authorization": f"Bearer {token}", **headers}
        status = self.upgrade(path, **headers)
        told = json.loads(self.ask("/door.json", **headers)[1])
        assert (status == 101) is told["open"], (status, told)
        return str(told["code"])

    def upgrade(self, path: str = "/ws", **headers: str) -> int:
        """The status of a websocket's upgrade."""
        upgrade = {
            "Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13",
            "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }  # fmt: skip
        lines = {
            "Host": f"127.0.0.1:{self.run.settings.port}",
            "X_Forwarded_For": self.address,
            **upgrade,
            **headers,
        }
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in lines.items())
        return int(self.raw(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode("latin-1"))[:12].split()[1])

    def raw(self, data: bytes) -> bytes:
        """The first bytes of the answer to these."""
        return send_raw(self.run.settings.port, data)

    def connect(self, token: str, **options: Any) -> Any:
        """A version 2 websocket with the token in the header."""
        headers = {"X-Forwarded-For": self.address, "Authorization": f"Bearer {token}"}
        return connect(
            self.run.url("/ws", "ws"),
            subprotocols=V2,
            additional_headers=headers,
            **options,
        )


def new_visit(run: Running) -> Visit:
    """A client from an address that no test has come from before."""
    number = next(_numbers)
    return Visit(run, f"10.{number >> 8}.{number & 255}.1")


def send_raw(port: int, data: bytes) -> bytes:
    """The first bytes of a gateway's answer to these."""
    with socket.create_connection(("127.0.0.1", port), timeout=10) as sock:
        sock.sendall(data)
        return sock.recv(1 << 16)


async def guess(run: Running, address: str, count: int, statuses: Counter[int]) -> None:
    """Send so many wrong tokens, each on a connection of its own."""
    head = f"GET /avatars.json HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Forwarded-For: {address}\r\n"
    for _ in range(count):
        reader, writer = await asyncio.open_connection("127.0.0.1", run.settings.port)
        writer.write(f"{head}Authorization: Bearer {new_token()}\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        statuses[int(answer[9:12])] += 1


async def let_in(visit: Visit, token: str) -> float:
    """Seconds until a right token is let in, by a client that waits as it is told."""
    began = time.monotonic()
    while True:
        status, _, headers = await asyncio.to_thread(
            visit.ask, "/avatars.json", Authorization=f"Bearer {token}"
        )
        if status == 200:
            return time.monotonic() - began
        assert status == 429 and 1 <= int(headers["retry-after"]) <= CYCLE
        await asyncio.sleep(int(headers["retry-after"]))


async def last_text(ws: ClientConnection) -> dict[str, Any]:
    """The last text before the gateway closes the websocket."""
    text: str | bytes = "{}"
    try:
        while True:
            text = await ws.recv()
    except ConnectionClosed:
        return dict(json.loads(text))


async def carry_everywhere(port: int, program: str, browser: str, percent: str) -> None:
    """Bring both tokens, good and in broken requests."""
    for token in (program, browser):
        for query, headers in (("", {"Authorization": f"Bearer {token}"}), (f"?token={token}", {})):
            async with connect(
                f"ws://127.0.0.1:{port}/ws{query}", subprotocols=V2, additional_headers=headers
            ) as ws:
                await ws.send('{"type": "hello"}')
                assert json.loads(await ws.recv())["type"] == "ready"
        async with connect(
            f"ws://127.0.0.1:{port}/ws", subprotocols=[*V2, Subprotocol(SUBPROTOCOL_PREFIX + token)]
        ) as ws:
            await ws.send('{"type": "hello"}')
            assert json.loads(await ws.recv())["type"] == "ready"
    host = f"Host: 127.0.0.1:{port}\r\n"
    for request in (
        f"GET /avatars.json?token={percent} HTTP/1.1\r\n{host}\r\n",
        f"GET /ws?token={percent} HTTP/1.1\r\n{host}\r\n",
        f"GET /?token={program}\r\n\r\n",
        f"BREW /?token={browser} COFFEE/1\r\n\r\n",
        f"GET / HTTP/1.1\r\n{host}Authorization Bearer {program}\r\n\r\n",
        f"GET / HTTP/1.1\r\n{host}X: {program}\x00\r\n\r\n",
        f"{program}\r\n\r\n",
        f"GET /{program} HTTP/1.1\r\nHost: {program}\r\n\r\n",
        f"GET /avatars/{browser}.png HTTP/1.1\r\n{host}Cookie: t={program}\r\n\r\n",
        f"GET /{'a' * 70000}{program} HTTP/1.1\r\n{host}\r\n",
        f"POST /tokens?ttl={program} HTTP/1.1\r\n{host}Authorization: Bearer {program}\r\n\r\n",
    ):
        with suppress(ConnectionError):  # it is closed before it is read whole
            await asyncio.to_thread(send_raw, port, request.encode("latin-1"))
