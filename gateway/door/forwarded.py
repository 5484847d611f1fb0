"""The headers by which a proxy tells whom it serves: X-Forwarded-* and Forwarded (RFC 7239).

Only the headers of a trusted proxy count. Each proxy appends the address that it saw, so the list is read
from its right end, past the trusted proxies. The first address that is not trusted is the client's. The
client may have invented everything to the left of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from websockets.datastructures import Headers

from protocol.process.addresses import IpAddress, parse_ip

AddressRange = IPv4Network | IPv6Network

#: Headers that a proxy adds.
HEADERS = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")
#: Hops that are read. A longer list is cut on its left.
MAX_HOPS = 32
#: A pair of RFC 7239, and the comma or semicolon or end behind it.
_PAIR = re.compile(r'\s*([A-Za-z]+)=("(?:[^"\\]|\\.)*"|[^\s",;]*)\s*([,;]|$)')


class ForwardedError(ValueError):
    """The headers contradict each other. The text says how."""


@dataclass(frozen=True, slots=True)
class Hop:
    """One proxy's report of the request that it received. Empty texts are not told."""

    client: str = ""
    scheme: str = ""
    host: str = ""


def is_trusted(address: IpAddress | None, proxies: Sequence[AddressRange]) -> bool:
    """Whether the address is one of the proxies."""
    return address is not None and any(
        address in network for network in proxies if network.version == address.version
    )


def forwarded_by(
    peer: IpAddress | None, headers: Headers, proxies: Sequence[AddressRange]
) -> tuple[str, Hop]:
    """The client's address, and the report that names it.

    Args:
        peer: the other end of the connection.
        headers: of the request.
        proxies: whose headers count.

    Returns:
        The peer's address and an empty report where the peer is not trusted or reports nothing.

    Raises:
        ForwardedError: Forwarded and X-Forwarded-For name different clients. A proxy writes one of them and
            passes the other on from its client, so that neither can be believed.
    """
    if not is_trusted(peer, proxies):
        return ("" if peer is None else str(peer)), Hop()
    reports = [hops for hops in (_standard_hops(headers), _x_hops(headers)) if hops]
    clients = [_client_of(peer, hops, proxies) for hops in reports]
    if len({address for address, _ in clients}) > 1:
        raise ForwardedError("Forwarded and X-Forwarded-For name different clients")
    if not clients:
        return str(peer), Hop("", _last(headers, "X-Forwarded-Proto"), _last(headers, "X-Forwarded-Host"))
    address, hop = clients[-1]
    # Where a proxy writes Forwarded alone, X-Forwarded-Proto and -Host come from its client.
    return address, hop


def _client_of(
    peer: IpAddress | None, hops: Sequence[Hop], proxies: Sequence[AddressRange]
) -> tuple[str, Hop]:
    """Walk from the right past the trusted addresses. An address that cannot be read ends the walk."""
    known, told = peer, hops[-1]
    for hop in reversed(hops):
        told = hop
        address = node_address(hop.client)
        if address is None:  # `unknown` or a made-up name: the proxy that said so stands for the client
            break
        known = address
        if not is_trusted(address, proxies):
            break
    return str(known), told


def _x_hops(headers: Headers) -> list[Hop]:
    """The X-Forwarded headers as hops. One scheme or host for many hops stands for all of them."""
    clients = _listed(headers, "X-Forwarded-For")
    schemes, hosts = _listed(headers, "X-Forwarded-Proto"), _listed(headers, "X-Forwarded-Host")
    hops = []
    for place in range(len(clients)):
        scheme = schemes[place] if len(schemes) == len(clients) else (schemes or [""])[-1]
        host = hosts[place] if len(hosts) == len(clients) else (hosts or [""])[-1]
        hops.append(Hop(clients[place], scheme.lower(), host))
    return hops


def _standard_hops(headers: Headers) -> list[Hop]:
    """The Forwarded headers as hops. One that cannot be read stands for an unknown client."""
    hops: list[dict[str, str]] = []
    for text in headers.get_all("Forwarded"):
        place = 0
        element: dict[str, str] = {}
        while place < len(text):
            match = _PAIR.match(text, place)
            if match is None:
                return [Hop("unknown")]  # only the right end can be trusted, and it cannot be read
            value = match[2]
            element[match[1].lower()] = re.sub(r"\\(.)", r"\1", value[1:-1]) if value[:1] == '"' else value
            place = match.end()
            if match[3] != ";":
                hops.append(element)
                element = {}
        if element:
            hops.append(element)
    return [
        Hop(hop.get("for", "unknown"), hop.get("proto", "").lower(), hop.get("host", ""))
        for hop in hops[-MAX_HOPS:]
    ]


def _listed(headers: Headers, name: str) -> list[str]:
    """The items of a header, the nearest proxy's last."""
    items = [item.strip() for text in headers.get_all(name) for item in text.split(",")]
    return items[-MAX_HOPS:]


def _last(headers: Headers, name: str) -> str:
    return (_listed(headers, name) or [""])[-1]


def node_address(text: str) -> IpAddress | None:
    """The address of `192.0.2.1`, `192.0.2.1:80`, `[2001:db8::1]:80` or `2001:db8::1`; None for others."""
    match = re.fullmatch(r"\[([^\]]+)\](?::\w+)?|([0-9.]+):\w+", text)
    return parse_ip(text if match is None else match[1] or match[2])
