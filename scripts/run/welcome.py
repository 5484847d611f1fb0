"""The console's lines when other machines reach a run: addresses, and a code for a phone's camera.

The link for a phone goes to the console alone: its token would let in everyone who reads the log.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TextIO

from protocol.process.addresses import WILDCARDS, is_loopback, own_addresses, own_names
from protocol.process.settings import Settings, default_token_file, flag, tokens_command
from scripts.run.address import url_on

#: Addresses to name. A machine with many bridges has more, and nobody reads them.
MOST_ADDRESSES = 4
#: Seconds for which the link on the console lets sessions begin.
LINK_SECONDS = 3600
#: An address of the documentation (RFC 5737). No packet is sent to it.
_ELSEWHERE = "192.0.2.1"


@dataclass(frozen=True, slots=True)
class ConsoleLink:
    """An address of the page that lets in whoever opens it."""

    url: str
    #: Seconds since 1970 until the token in it is no longer taken. None: there is no token in it.
    ends: float | None = None


def lan_hosts(host: str) -> list[str]:
    """Where other machines reach a server that listens on `host`, the best one first.

    Args:
        host: as in `--host`. Loopback gives nothing.
    """
    if is_loopback(host):
        return []
    if host not in WILDCARDS:
        return [host]
    addresses = [str(address) for address in own_addresses() if host == "::" or address.version == 4]
    best = _default_route_address()
    addresses.sort(key=lambda address: address != best)  # stable: only the best one moves
    names = [name for name in own_names() if name.endswith(".local")]
    return [*addresses[:MOST_ADDRESSES], *names]


def network_lines(settings: Settings) -> Iterator[str]:
    """How other machines reach a run. Nothing for a run on loopback."""
    urls = [url_on(settings, host) for host in lan_hosts(settings.host)]
    if not urls:
        return
    yield f"from other machines: {' '.join(urls)}"
    if not settings.serves_tls:
        yield "a browser on another machine gets no microphone without HTTPS: add --tls self-signed"
    elif settings.tls == "self-signed":
        yield from _about_certificate()


def link_command(settings: Settings) -> str:
    """The command that makes a link to this run's page, with the flags that say where the page is."""
    usual = {field.name: field.default for field in dataclasses.fields(Settings)}
    usual["token_file"] = default_token_file(os.environ)
    names = ("host", "port", "tls", "tls_cert", "tls_key", "token_file")
    values = {name: getattr(settings, name) for name in names}
    flags = [
        f"{flag(name)} {shlex.quote(str(value))}" for name, value in values.items() if value != usual[name]
    ]
    return " ".join([f"{tokens_command()} link", *flags])


def page_link(settings: Settings, url: str) -> ConsoleLink | None:
    """A link of the page's address that lets a phone in.

    Where tokens are asked for, it carries a browser's token, as a program's token with the scope `mint` would
    mint it. None where the token file has no such token, or cannot be read: the gateway tells about that.
    """
    if settings.token_file is None:
        return ConsoleLink(url)
    from gateway.door.page_link import make_page_link, token_for_links
    from gateway.door.token_file import TokenFileError, read_book

    now = int(time.time())
    # Who reads the console is the operator, whose own avatars outlast the link.
    wishes = {"ttl": str(LINK_SECONDS), "subject": "operator"}
    try:
        book = read_book(settings.token_file)
        link = make_page_link(book, token_for_links(book, None, now), url, wishes, now)
    except TokenFileError:
        return None
    return ConsoleLink(link.url, link.ends)


def phone_lines(
    settings: Settings,
    stream: TextIO,
    make_link: Callable[[Settings, str], ConsoleLink | None] = page_link,
) -> Iterator[str]:
    """A link for a phone, and its code. Only for a terminal, and only for a run that other machines reach.

    Args:
        settings: of the run.
        stream: the console.
        make_link: makes a link of the page's address. None: there can be no link.
    """
    hosts = lan_hosts(settings.host)
    if not hosts or not stream.isatty():
        return
    link = make_link(settings, f"{url_on(settings, hosts[0])}/")
    if link is None:
        yield "for a phone: python -m scripts.tokens link NAME makes an address that lets it in"
        return
    until = f" (it lets in whoever has it, until {time.strftime('%H:%M', time.localtime(link.ends))})"
    yield f"for a phone{until if link.ends else ''}: {link.url}"

    from scripts.run.qr_code import qr_lines, qr_width

    if _draws_blocks(stream) and qr_width(link.url) <= _columns(stream):
        yield from qr_lines(link.url)


def _about_certificate() -> Iterator[str]:
    from cryptography.hazmat.primitives import hashes

    from gateway.door.certificates import CertificateError, read_certificate
    from gateway.door.self_signed import self_signed_files

    try:
        leaf = read_certificate(self_signed_files()).leaf
    except CertificateError:  # it is being made anew; the gateway tells what is wrong
        return
    yield "the certificate is self-signed, so each browser warns once; its SHA-256 fingerprint is"
    yield leaf.fingerprint(hashes.SHA256()).hex(":").upper()


def _draws_blocks(stream: TextIO) -> bool:
    try:
        "▀▄█".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return os.environ.get("TERM", "dumb") != "dumb"


def _columns(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _default_route_address() -> str:
    """The address that packets to other networks leave from. Empty where no route leads there."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((_ELSEWHERE, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return ""
