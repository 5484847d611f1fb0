"""Answers to plain HTTP requests, and their headers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus

from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from protocol.wire.phrases import coded

JSON = "application/json"

#: Headers of every answer that no setting changes.
FIXED_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(self), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
}


@dataclass(frozen=True)
class HttpAnswer:
    """One answer.

    Attributes:
        body: its bytes.
        kind: its media type.
        status: its HTTP status.
        cached: the browser may keep it, and asks whether it is still the same.
        headers: further headers.
        public: pages of every site may read it, and load it as a script or picture.
    """

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: int = HTTPStatus.OK
    cached: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    public: bool = False


def plain(status: int, text: str, headers: Iterable[tuple[str, str]] = (), why: str = "") -> HttpAnswer:
    """A sentence as an answer. The header Phrase has its code, or that of `why`, the reason within it."""
    known = coded(why or text)
    named = (("Phrase", json.dumps(known)),) if known else ()
    return HttpAnswer(f"{text}\n".encode(), status=status, headers=(*headers, *named))


def json_answer(value: object, status: int = HTTPStatus.OK, *, public: bool = False) -> HttpAnswer:
    """A value as JSON."""
    return HttpAnswer(json.dumps(value).encode(), JSON, status, public=public)


def security_headers(embedders: Iterable[str]) -> dict[str, str]:
    """Headers of every answer. The page may use its own files alone: no inline code, no other host.

    Args:
        embedders: origins whose pages may hold the page in a frame.
    """
    ancestors = " ".join(("'self'", *embedders)) if embedders else "'none'"
    headers = {
        "Content-Security-Policy": (
            "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; "
            "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; "
            f"base-uri 'none'; form-action 'none'; frame-ancestors {ancestors}"
        ),
        **FIXED_HEADERS,
    }
    if not embedders:
        # It knows no list of origins, and older browsers know nothing else.
        headers["X-Frame-Options"] = "DENY"
    return headers


def sharing_headers(answer: HttpAnswer, shared_with: str | None) -> dict[str, str]:
    """Headers that say which other sites may read an answer (CORS).

    Args:
        answer: which every site may read if it is public.
        shared_with: the origin that sent the request, if its pages may read every answer.
    """
    if answer.public:
        return {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
    if shared_with is not None:
        return {
            "Access-Control-Allow-Origin": shared_with,
            "Cross-Origin-Resource-Policy": "cross-origin",
            "Vary": "Origin",
        }
    return {"Cross-Origin-Resource-Policy": "same-origin", "Vary": "Origin"}


def http_response(request: Request, answer: HttpAnswer, extra: Mapping[str, str]) -> Response:
    """`answer` with its headers. The body is left out for HEAD, and when the client has it already."""
    status, body = answer.status, answer.body
    headers = Headers()
    headers["Date"] = formatdate(usegmt=True)
    headers["Connection"] = "close"
    for name, value in (*extra.items(), *answer.headers):
        headers[name] = value
    if answer.cached:
        # The browser asks every time and gets the body only when it changed: a new page is seen at once.
        tag = f'"{hashlib.blake2b(body, digest_size=12).hexdigest()}"'
        headers["Cache-Control"] = "no-cache"
        headers["ETag"] = tag
        # `get` raises an error where a client sends the header twice.
        if any(tag in tags for tags in request.headers.get_all("If-None-Match")):
            status, body = HTTPStatus.NOT_MODIFIED, b""
    else:
        headers["Cache-Control"] = "no-store"
    if status not in (HTTPStatus.NOT_MODIFIED, HTTPStatus.NO_CONTENT):
        headers["Content-Type"] = answer.kind
        headers["Content-Length"] = str(len(body))
    head = method_of(request) == "HEAD"
    return Response(int(status), HTTPStatus(status).phrase, headers, b"" if head else body)


def method_of(request: Request) -> str:
    """The request's method. Older versions of websockets read nothing but GET and tell none."""
    return str(getattr(request, "method", "GET"))


def is_upgrade(request: Request) -> bool:
    """Whether a request asks for a websocket."""
    return any("websocket" in value.lower() for value in request.headers.get_all("Upgrade"))
