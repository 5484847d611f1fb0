"""A request's address: its path, and the hosts that headers name. Pure functions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from protocol.process.addresses import IpAddress, parse_ip

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~%-]+)?\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?")
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([^/?#@\s]+)", re.IGNORECASE)
#: Ports that browsers leave out of Host and Origin.
DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host as a header names it.

    Attributes:
        name: the name in lower case, or the numeric address in its shortest notation, without brackets.
        port: None where the header has none.
        address: the numeric address, None for a name.
    """

    name: str
    port: int | None
    address: IpAddress | None = None

    def __str__(self) -> str:
        host = f"[{self.name}]" if ":" in self.name else self.name
        return host if self.port is None else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Origin:
    """An Origin header, or an entry of a list of origins, where `*.` stands for any name below the host."""

    scheme: str
    host: HostPort

    @property
    def port(self) -> int | None:
        """The port, also where it is left out; None for a scheme without a known one."""
        return DEFAULT_PORTS.get(self.scheme) if self.host.port is None else self.host.port

    def covers(self, other: Origin) -> bool:
        """Whether `other` is this origin, or one below `*.`."""
        if (self.scheme, self.port) != (other.scheme, other.port):
            return False
        mine, theirs = self.host.name, other.host.name
        return theirs.endswith(mine[1:]) if mine.startswith("*.") else mine == theirs


def parse_authority(text: str) -> HostPort | None:
    """Read `host`, `host:port` or `[address]:port`; None for anything else, such as `user@host`.

    A dot at a name's end is dropped: `face.example.` is the same name. Behind a number it makes the host one
    that cannot be read, and so does a number that only some resolvers take (`0x7f.1`).
    """
    match = _AUTHORITY.fullmatch(text)
    if match is None or (match[2] is not None and int(match[2]) > 65535):
        return None
    port = None if match[2] is None else int(match[2])
    if match[1].startswith("["):
        address = parse_ip(match[1][1:-1])
        return None if address is None else HostPort(str(address), port, address)
    address = parse_ip(match[1])
    if address is not None:
        return HostPort(str(address), port, address)
    name = match[1].lower().removesuffix(".")
    last = name.rpartition(".")[2]
    # The last label of a name is never a number: browsers read such a host as an address.
    if re.fullmatch(r"0x[0-9a-f]*|[0-9]*", last):
        return None
    return HostPort(name, port)


def parse_origin(text: str) -> Origin | None:
    """Read scheme, host and port; None for anything else, such as `null`."""
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    wildcard, rest = ("*.", match[2][2:]) if match[2].startswith("*.") else ("", match[2])
    host = parse_authority(rest)
    if host is None or (wildcard and host.address is not None):
        return None
    return Origin(match[1].lower(), HostPort(wildcard + host.name, host.port, host.address))


@dataclass(frozen=True, slots=True)
class Target:
    """The address in a request's first line.

    Attributes:
        path: as it was sent, nothing decoded and nothing resolved.
        query: the text behind the question mark.
        authority: of an absolute address (`GET http://host/ HTTP/1.1`), else None.
    """

    path: str
    query: str
    authority: str | None = None


def parse_target(text: str) -> Target | None:
    """Read a request's address; None when it is neither a path nor an absolute HTTP address."""
    if text.startswith("/"):
        path, _, query = text.partition("?")
        return Target(path, query)
    try:
        parts = urlsplit(text)
    except ValueError:  # such as http://[
        return None
    if parts.scheme not in DEFAULT_PORTS or not parts.netloc:
        return None
    return Target(parts.path or "/", parts.query, parts.netloc)


def strip_prefix(path: str, prefix: str) -> str:
    """The path below `prefix`, or as it is where it does not lie there: some proxies strip it themselves.

    Only the prefix as it is spelled counts. `/face/../x`, `/%66ace/x` and `//face/x` name no file afterwards.
    """
    if prefix and path.startswith(prefix + "/"):
        return path[len(prefix) :]
    return path
