"""Hosts and origins as browsers write them, read in one way only: for the settings and the door."""

from __future__ import annotations

import re
from dataclasses import dataclass

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
class WebOrigin:
    """An Origin header, or an entry of a list of origins, where `*.` stands for any name below the host."""

    scheme: str
    host: HostPort

    @property
    def port(self) -> int | None:
        """The port, also where it is left out; None for a scheme without a known one."""
        return DEFAULT_PORTS.get(self.scheme) if self.host.port is None else self.host.port

    def covers(self, other: WebOrigin) -> bool:
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
    labels = name.split(".")
    # The last label of a name is never a number: browsers read such a host as an address.
    if not all(labels) or re.fullmatch(r"0x[0-9a-f]*|[0-9]+", labels[-1]):
        return None
    return HostPort(name, port)


def parse_origin(text: str) -> WebOrigin | None:
    """Read scheme, host and port; None for anything else, such as `null`."""
    match = _ORIGIN.fullmatch(text)
    if match is None:
        return None
    wildcard, rest = ("*.", match[2][2:]) if match[2].startswith("*.") else ("", match[2])
    host = parse_authority(rest)
    if host is None or (wildcard and host.address is not None):
        return None
    return WebOrigin(match[1].lower(), HostPort(wildcard + host.name, host.port, host.address))
