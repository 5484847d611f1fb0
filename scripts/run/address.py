"""The addresses of a run's page, and a connection to its gateway."""

from __future__ import annotations

import http.client

from protocol.process.addresses import bracketed, reachable_hosts
from protocol.process.settings import Settings


def base_url(settings: Settings) -> str:
    """Where a browser on this machine finds the page."""
    return page_urls(settings)[0]


def page_urls(settings: Settings) -> list[str]:
    """Where browsers find the page. The first address works on this machine, the others on the network."""
    return [f"http://{bracketed(host)}:{settings.port}" for host in reachable_hosts(settings.host)]


def connect_gateway(settings: Settings, timeout: float) -> http.client.HTTPConnection:
    """A connection to the run's gateway, not opened yet.

    Args:
        timeout: seconds.
    """
    return http.client.HTTPConnection(reachable_hosts(settings.host)[0], settings.port, timeout=timeout)
