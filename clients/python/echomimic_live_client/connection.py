"""One websocket to the server: opening it, and the reasons for which it ends."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.typing import Subprotocol

from echomimic_live_client.address import Address
from echomimic_live_client.errors import ClientError, ConnectionLost, Refused, SessionEnded
from echomimic_live_client.wire import MAX_DOWN_BYTES, SUBPROTOCOL

#: Seconds for opening a connection, for the answer to a hello, and for a goodbye.
OPEN_WITHIN = 10.0
READY_WITHIN = 15.0
CLOSE_WITHIN = 2.0
#: Seconds for the answer to a plain request.
ANSWER_WITHIN = 10.0
#: Seconds between pings, and to wait for the answer to one: a network that is gone is noticed by them.
PING_EVERY, PING_WITHIN = 5.0, 10.0
#: HTTP status → code of a refusal, where the server does not tell the code.
_CODES = {400: "bad_request", 401: "token_wrong", 403: "origin", 421: "host", 429: "throttled", 503: "busy"}
#: Codes of a close whose text says that the session is over.
_ENDING = frozenset({1003, 1007, 1008, 1009, 1011, 1012, 1013})
#: Statuses that send a client to another address.
_REDIRECTS = frozenset({300, 301, 302, 303, 307, 308})
TIMEOUTS = (TimeoutError, asyncio.TimeoutError)  # two classes before Python 3.11


class _ConnectHere(connect):
    """Opens a websocket at the address that was given and no other: the token is for that server alone."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


class _StayHere(urllib.request.HTTPRedirectHandler):
    """Follows no redirect."""

    def redirect_request(self, *_: object) -> None:
        return None


@dataclass(frozen=True)
class Answer:
    """An answer to a plain request."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Network:
    """How to reach the server.

    Attributes:
        address: of the server, with the token.
        ssl: certificates to trust, None for the system's.
        proxy: address of a proxy, True for the one that the environment names, None for none.
    """

    address: Address
    ssl: ssl.SSLContext | None = field(default=None, repr=False)
    proxy: str | Literal[True] | None = True

    async def open(self) -> ClientConnection:
        """Open a websocket of version 2.

        Raises:
            Refused: the door does not let the client in.
            ConnectionLost: nobody answers.
        """
        options: dict[str, Any] = {"ssl": self.ssl} if self.ssl is not None else {}
        try:
            socket = await _ConnectHere(
                self.address.socket,
                subprotocols=[Subprotocol(SUBPROTOCOL)],
                additional_headers=self.address.headers,
                compression=None,
                max_size=MAX_DOWN_BYTES,
                open_timeout=OPEN_WITHIN,
                close_timeout=CLOSE_WITHIN,
                ping_interval=PING_EVERY,
                ping_timeout=PING_WITHIN,
                proxy=None if self.address.local else self.proxy,
                **options,
            )
        except InvalidStatus as error:
            raise await self._refusal(error) from None
        except (OSError, *TIMEOUTS, WebSocketException) as error:
            reason = str(error) or type(error).__name__
            raise ConnectionLost(f"{self.address.socket}: {reason}") from error
        if socket.subprotocol != SUBPROTOCOL:
            await socket.close()
            raise Refused("bad_request", "the server does not speak version 2 of the wire", 101)
        return socket

    async def _refusal(self, error: InvalidStatus) -> Refused:
        """The refusal as an exception. The door tells the code of one that a status leaves open."""
        answer = error.response
        text = bytes(answer.body or b"")[:2000].decode(errors="replace").strip()
        code = _CODES.get(answer.status_code, "refused")
        if answer.status_code in (401, 403):
            told = await asyncio.to_thread(self._ask_door)
            code, text = told.get("code") or code, told.get("message") or text
        if answer.status_code in _REDIRECTS:
            place = urlsplit(answer.headers.get("Location", ""))
            text = (
                f"the server sends its visitors to {place.scheme}://{place.netloc}{place.path}: connect there"
            )
        after = answer.headers.get("Retry-After", "")
        seconds = float(after) if after.isdecimal() else 0.0
        return Refused(code, text or f"HTTP status {answer.status_code}", answer.status_code, seconds)

    def _ask_door(self) -> dict[str, str]:
        try:
            fields = json.loads(self._request("GET", "door.json", {}, 65_536).body)
        except (OSError, ValueError):
            return {}
        return {name: value for name, value in fields.items() if isinstance(value, str)}

    async def ask(self, method: str, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        """A plain request to an address beside the page's, with the token. Raises ConnectionLost."""
        try:
            return await asyncio.to_thread(self._request, method, path, headers or {}, MAX_DOWN_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise ConnectionLost(f"{self.address.door}: {str(error) or type(error).__name__}") from error

    def _request(self, method: str, path: str, headers: Mapping[str, str], most: int) -> Answer:
        proxies = urllib.request.ProxyHandler({} if self.address.local or self.proxy is None else None)
        trust = urllib.request.HTTPSHandler(context=self.ssl)
        opener = urllib.request.build_opener(proxies, trust, _StayHere)
        request = urllib.request.Request(
            self.address.door.removesuffix("door.json") + path,
            method=method,
            headers={**self.address.headers, **headers},
        )
        try:
            with opener.open(request, timeout=ANSWER_WITHIN) as answer:
                return Answer(answer.status, dict(answer.headers), answer.read(most))
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, dict(error.headers), error.read(65_536))


def reason_of(closed: ConnectionClosed) -> ClientError:
    """The error for a connection that ended without an `error` text: lost, or ended by the server."""
    frame = closed.rcvd
    if frame is None or frame.code not in {1000, *_ENDING}:
        return ConnectionLost(frame.reason if frame and frame.reason else "the connection broke off")
    code, mark, message = frame.reason.partition(": ")
    if mark and code.isidentifier():
        return SessionEnded(code, message)
    if frame.code == 1012:
        return SessionEnded("shutdown", frame.reason or "the server stops")
    return SessionEnded("closed", frame.reason or f"the server closed the session ({frame.code})")
