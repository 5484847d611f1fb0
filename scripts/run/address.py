"""The addresses of a run's page, and a connection to its gateway."""

from __future__ import annotations

import http.client
import ssl

from protocol.process.addresses import bracketed, reachable_hosts
from protocol.process.settings import Settings


def base_url(settings: Settings) -> str:
    """Where a browser on this machine finds the page."""
    return url_on(settings, reachable_hosts(settings.host)[0])


def url_on(settings: Settings, host: str) -> str:
    """The address of the page on one of the machine's hosts."""
    scheme = "https" if settings.serves_tls else "http"
    return f"{scheme}://{bracketed(host)}:{settings.port}"


def connect_gateway(settings: Settings, timeout: float) -> http.client.HTTPConnection:
    """A connection to the run's gateway, not opened yet.

    Args:
        settings: of the run.
        timeout: seconds.
    """
    host = reachable_hosts(settings.host)[0]
    if not settings.serves_tls:
        return http.client.HTTPConnection(host, settings.port, timeout=timeout)
    # The certificate names the addresses that other machines use. So neither names nor issuer are checked
    # here. This is safe: the connection goes to an address of this machine, it carries no secret, and its
    # answer decides only when "ready" is printed.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, settings.port, timeout=timeout, context=context)
