"""Addresses of a server: from the page's to the websocket's, with the token kept out of it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_SCHEMES = {"http": "ws", "ws": "ws", "https": "wss", "wss": "wss"}


@dataclass(frozen=True)
class Address:
    """Where a server listens.

    Attributes:
        socket: the websocket's address, without any token.
        door: the address that tells why a client is refused.
        local: whether the server is on this machine, so that no proxy leads there.
        token: the token, or an empty text.
    """

    socket: str
    door: str
    local: bool
    token: str = field(default="", repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


def parse_address(url: str, token: str = "") -> Address:
    """The address of a server by its page's (`https://host/face/`) or its websocket's (`wss://host/face/ws`).

    A token in it (`?token=…`, `#token=…`) is taken out: it goes into a header, which nobody logs.

    Raises:
        ValueError: it is no address of a server. The text never holds the query.
    """
    parts = urlsplit(url)
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None or not parts.hostname:
        shown = urlunsplit((parts.scheme, parts.hostname or "", parts.path, "", ""))
        raise ValueError(f"{shown!r} is no address of a server: give http://HOST:PORT or wss://HOST/ws")
    if parts.username is not None:
        raise ValueError("the address names a user; give a token by the argument `token`")
    query = parse_qsl(parts.query, keep_blank_values=True)
    found = [value for name, value in [*query, *parse_qsl(parts.fragment)] if name == "token"]
    rest = urlencode([(name, value) for name, value in query if name != "token"])
    base = parts.path.removesuffix("/ws") if parts.path.endswith("/ws") else parts.path
    base = base.removesuffix("/")
    web = "https" if scheme == "wss" else "http"
    return Address(
        socket=urlunsplit((scheme, parts.netloc, f"{base}/ws", rest, "")),
        door=urlunsplit((web, parts.netloc, f"{base}/door.json", "", "")),
        local=_is_local(parts.hostname),
        token=token or (found[0] if found else ""),
    )


def _is_local(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
