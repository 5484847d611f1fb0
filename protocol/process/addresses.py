"""Addresses of this machine: which are loopback, how to listen on one, which a browser can open."""

from __future__ import annotations

import ipaddress
import socket
from ipaddress import IPv4Address, IPv6Address

IpAddress = IPv4Address | IPv6Address

#: Hosts that stand for every address of the machine.
WILDCARDS = ("0.0.0.0", "::")


def parse_ip(text: str) -> IpAddress | None:
    """The numeric address, without its zone; None for anything else.

    An IPv4 address in IPv6 notation (`::ffff:192.0.2.1`) becomes the IPv4 address. A socket for both families
    shows IPv4 clients in that notation.
    """
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def is_loopback(host: str) -> bool:
    """Whether a host, numeric or `localhost`, is this machine seen from itself."""
    address = parse_ip(host)
    return host.lower() == "localhost" if address is None else address.is_loopback


def bracketed(host: str) -> str:
    """The host as it stands in a URL."""
    return f"[{host}]" if ":" in host else host


def bind_socket(host: str, port: int) -> socket.socket:
    """A bound TCP socket that does not listen yet. `::` is for IPv4 clients too.

    Of a name's addresses an IPv4 one is taken, if there is any.

    Raises:
        OSError: the address is not this machine's, is taken, or its name is not known.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(host != "::"))
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock


def own_names() -> list[str]:
    """Names by which other machines may know this one, in lower case: its host name, also with `.local`."""
    name = socket.gethostname().lower().rstrip(".")
    bare = name.partition(".")[0]
    return list(dict.fromkeys(entry for entry in (name, bare, f"{bare}.local") if bare))


def own_addresses() -> list[IpAddress]:
    """Addresses of this machine's interfaces but loopback, IPv4 first.

    Link-local IPv6 addresses are left out: a browser cannot open them, since they need a zone.
    """
    import psutil  # not installed yet when a launcher asks for --help

    found: set[IpAddress] = set()
    for entries in psutil.net_if_addrs().values():
        for entry in entries:
            address = parse_ip(entry.address) if entry.family in (socket.AF_INET, socket.AF_INET6) else None
            if address is None or address.is_loopback:
                continue
            if not (address.version == 6 and address.is_link_local):
                found.add(address)
    return sorted(found, key=lambda address: (address.version, int(address)))


def reachable_hosts(host: str) -> list[str]:
    """Hosts under which a browser finds a server that listens on `host`.

    The first one works on this machine. It comes alone unless `host` is a wildcard.
    """
    if host not in WILDCARDS:
        return [host]
    own = [address for address in own_addresses() if host == "::" or address.version == 4]
    return ["127.0.0.1", *map(str, own)]
