"""The address in a request's first line. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from protocol.process.web_hosts import DEFAULT_PORTS


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
