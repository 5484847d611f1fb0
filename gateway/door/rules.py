"""The rules of Host, Origin, path prefix and forwarded headers, free of sockets."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from functools import cached_property

from websockets.datastructures import Headers
from websockets.http11 import Request

from gateway.door.forwarded import HEADERS, ForwardedError, forwarded_by, is_trusted, node_address
from gateway.door.refusals import Refusal, Refused, quoted
from gateway.door.target import parse_target, strip_prefix
from protocol.process.addresses import WILDCARDS, IpAddress, is_loopback, own_names, parse_ip
from protocol.process.settings import Settings
from protocol.process.web_hosts import DEFAULT_PORTS, HostPort, WebOrigin, parse_authority, parse_origin

#: Refusals of requests that no browser and no honest program sends.
UNREADABLE_ADDRESS = Refusal("bad_request", "The address cannot be read.")
UNREADABLE_HOST = Refusal("bad_request", "The request needs one Host header, with a host and perhaps a port.")


@dataclass(frozen=True)
class Visitor:
    """One request, as the rules see it.

    Attributes:
        address: the client's address, as a trusted proxy reports it. It is the proxy's own address where the
            proxy hides its client or is not trusted. Empty where the connection is gone.
        on_this_machine: whether the client is on this machine. A proxy on this machine makes everyone look
            local, so a request with a proxy's headers is local only where a trusted proxy says so.
        scheme: `http` or `https`, as the browser sees it.
        host: the host that the browser sees.
        named_hosts: every host that the request names, each of which has to be allowed.
        local: the address of this machine that the client connected to.
        path: without the prefix of `--root-path`. Nothing in it is decoded.
        query: the text behind the question mark. It may hold a token and belongs into no log.
        origins: the Origin headers, as they were sent.
        proxy: the address of a proxy whose headers were ignored, else empty.
    """

    address: str
    on_this_machine: bool
    scheme: str
    host: HostPort
    named_hosts: tuple[HostPort, ...]
    local: IpAddress | None
    path: str
    query: str
    origins: tuple[str, ...]
    proxy: str = ""

    @cached_property
    def own_origin(self) -> WebOrigin:
        """The origin of a page that this request's host serves."""
        return WebOrigin(self.scheme, self.host)

    @property
    def url(self) -> str:
        """Scheme and host as the browser writes them."""
        return f"{self.scheme}://{self.host}"


class Door:
    """Judges visitors by the settings."""

    def __init__(self, settings: Settings) -> None:
        self.prefix = settings.root_path or ""
        self.listens_on = settings.host
        self._own_name = str(parse_ip(settings.host) or settings.host.lower())
        self._proxies = [ipaddress.ip_network(entry) for entry in settings.trusted_proxies]
        self._hosts = [_HostRule.read(entry) for entry in settings.allowed_hosts]
        self._origins = [origin for entry in settings.allowed_origins if (origin := parse_origin(entry))]
        self.embedders = settings.embed_origins
        #: Names of this machine that count beyond loopback, where `--allowed-hosts` names no others.
        self._own_names = frozenset() if is_loopback(settings.host) else frozenset(own_names())

    def visitor(self, request: Request, peer: str, local: str, tls: bool) -> Visitor:
        """Read a request.

        Args:
            request: its first line and headers.
            peer: numeric address of the other end of the connection, empty where that is gone.
            local: numeric address of this end.
            tls: whether this connection is encrypted.

        Raises:
            Refused: the address or the Host cannot be read, or the forwarded headers contradict each other.
        """
        headers = request.headers
        target = parse_target(request.path)
        if target is None:
            raise Refused(UNREADABLE_ADDRESS)
        sent = headers.get_all("Host")
        if len(sent) != 1 or (target.authority or sent[0]).lower() != sent[0].lower():
            raise Refused(UNREADABLE_HOST)
        hosts = [_read_host(sent[0])]
        peer_address = parse_ip(peer)
        try:
            address, hop = forwarded_by(peer_address, headers, self._proxies)
        except ForwardedError as error:
            log = f"refused a request by the proxy {peer}: {error}; let it remove the one it does not write"
            raise Refused(Refusal("bad_request", f"{error}.", log)) from None
        if hop.host:
            hosts.insert(0, _read_host(hop.host))
        trusted, is_forwarded = self.is_proxy(peer), _has_any(headers, HEADERS)
        return Visitor(
            address=address,
            on_this_machine=(not is_forwarded or (trusted and node_address(hop.client) is not None))
            and all(_is_own(parse_ip(end), parse_ip(local)) for end in (peer, address)),
            scheme=hop.scheme if hop.scheme in DEFAULT_PORTS else "https" if tls else "http",
            host=hosts[0],
            named_hosts=tuple(hosts),
            local=parse_ip(local),
            path=strip_prefix(target.path, self.prefix),
            query=target.query,
            origins=tuple(headers.get_all("Origin")),
            proxy=str(peer_address) if is_forwarded and peer_address and not trusted else "",
        )

    def host_refusal(self, visitor: Visitor) -> Refusal | None:
        """Why the hosts that the request names are refused; None where all of them are allowed.

        DNS rebinding: a hostile page whose name resolves to this machine would pass the Origin check, so the
        Host is checked too.
        """
        for host in visitor.named_hosts:
            if not self._host_allowed(host, visitor):
                return Refusal(
                    "host",
                    f"This server does not answer to the name {quoted(host.name)}."
                    f" Its operator can allow the name: --allowed-hosts {quoted(host.name)}.",
                    f"refused the Host {quoted(str(host))}: --allowed-hosts {quoted(host.name)} allows it",
                )
        return None

    def origin_refusal(self, visitor: Visitor, origins: tuple[str, ...]) -> Refusal | None:
        """Why a page of these origins may not connect; None where it may.

        No Origin at all comes from no browser, and is allowed.
        """
        if not origins:
            return None
        origin = parse_origin(origins[0]) if len(origins) == 1 else None
        if origin is not None and (is_same_origin(origin, visitor) or self.lists_origin(origin)):
            return None
        # A text that is no origin is not quoted: it names nothing that a flag could allow.
        unread = "null" if origins == ("null",) else "an Origin that cannot be read"
        named = quoted(origins[0]) if origin else unread
        remedy = f"--allowed-origins {named} allows it" if origin else "no setting allows it"
        if visitor.proxy and origin is not None:
            remedy += (
                f"; if {visitor.proxy} is your proxy, --trusted-proxies {visitor.proxy} believes its headers"
            )
        return Refusal(
            "origin",
            f"Pages of {named} may not connect to {quoted(visitor.url)}."
            + (f" Its operator can allow the site: --allowed-origins {named}." if origin else ""),
            f"refused a page of {named} that connects to {quoted(visitor.url)}: {remedy}",
        )

    def is_proxy(self, address: str) -> bool:
        """Whether `--trusted-proxies` has the address."""
        return is_trusted(parse_ip(address), self._proxies)

    def lists_origin(self, origin: WebOrigin) -> bool:
        """Whether `--allowed-origins` has the origin."""
        return any(listed.covers(origin) for listed in self._origins)

    def shared_with(self, visitor: Visitor) -> str | None:
        """The origin of `--allowed-origins` that sent the request, for its CORS headers; None for others."""
        origin = parse_origin(visitor.origins[0]) if len(visitor.origins) == 1 else None
        return visitor.origins[0] if origin is not None and self.lists_origin(origin) else None

    def _host_allowed(self, host: HostPort, visitor: Visitor) -> bool:
        if is_loopback(host.name) or any(rule.covers(host, visitor.scheme) for rule in self._hosts):
            return True
        if host.address is not None and host.address == visitor.local:
            return True
        if self.listens_on not in WILDCARDS and host.name == self._own_name:
            return True
        if self._hosts or is_loopback(self.listens_on):
            return False
        return host.address is not None or host.name in self._own_names


def is_same_origin(origin: WebOrigin, visitor: Visitor) -> bool:
    """Whether the origin is that of the page that this request's host serves.

    An https page of the same host is taken for an http request too: a proxy that ends TLS need not say so.
    """
    own = visitor.own_origin
    if origin.host.name != own.host.name or origin.scheme not in DEFAULT_PORTS:
        return False
    if (origin.scheme, own.scheme) == ("http", "https"):
        return False
    port = DEFAULT_PORTS[origin.scheme] if own.host.port is None else own.host.port
    return origin.port == port


@dataclass(frozen=True, slots=True)
class _HostRule:
    """An entry of `--allowed-hosts`."""

    name: str
    port: int | None

    @classmethod
    def read(cls, entry: str) -> _HostRule:
        bare = parse_ip(entry)
        host = HostPort(str(bare), None, bare) if bare else parse_authority(entry.removeprefix("."))
        if host is None:
            raise ValueError(f"--allowed-hosts {entry}: not a host")
        return cls(("." if entry.startswith(".") else "") + host.name, host.port)

    def covers(self, host: HostPort, scheme: str) -> bool:
        if self.port is not None and self.port != (host.port or DEFAULT_PORTS[scheme]):
            return False
        if self.name.startswith("."):
            return host.name == self.name[1:] or host.name.endswith(self.name)
        return host.name == self.name


def _is_own(address: IpAddress | None, local: IpAddress | None) -> bool:
    """Whether a client's address is this machine's: loopback, or the one that the client connected to."""
    return address is not None and (address.is_loopback or address == local)


def _read_host(text: str) -> HostPort:
    host = parse_authority(text)
    if host is None:
        raise Refused(UNREADABLE_HOST)
    return host


def _has_any(headers: Headers, names: tuple[str, ...]) -> bool:
    return any(headers.get_all(name) for name in names)
