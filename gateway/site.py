"""The answers to plain HTTP requests, and the check of websocket upgrades."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from urllib.parse import unquote, urlsplit

from prometheus_client import CONTENT_TYPE_LATEST
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from gateway.stages import StageBoard
from gateway.thumbnails import Thumbnails

PAGE = Path(__file__).parent / "page"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}
JSON = "application/json"
SOCKET_PATHS = ("/", "/ws")
LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")

#: Headers of every answer. The page may use its own files alone: no inline code, no other host.
SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; worker-src 'self'; style-src 'self'; "
        "img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; manifest-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True)
class HttpAnswer:
    """An answer's body and type. `cached`: the browser may keep it, and asks whether it is still the same."""

    body: bytes
    kind: str = "text/plain; charset=utf-8"
    status: int = HTTPStatus.OK
    cached: bool = False


class Site:
    """The addresses that the gateway answers."""

    def __init__(
        self,
        board: StageBoard,
        thumbnails: Thumbnails,
        metrics: Callable[[], bytes],
        catalogue: Callable[[], dict[str, object]],
    ) -> None:
        """Read the page's files.

        Args:
            board: the stages' state, for /readyz.
            thumbnails: pictures of avatars and poses.
            metrics: makes the text of /metrics.
            catalogue: makes the object of /avatars.json.
        """
        self._board = board
        self._thumbnails = thumbnails
        self._metrics = metrics
        self._catalogue = catalogue
        self._files = _page_files(PAGE)

    async def respond(self, request: Request) -> Response | None:
        """The response to a request, or None for a websocket upgrade that may go on."""
        method = getattr(request, "method", "GET")  # older websockets read nothing but GET
        try:
            path = urlsplit(request.path).path
        except ValueError:  # such as the host of //[::1
            answer = _plain(HTTPStatus.BAD_REQUEST, "The address cannot be read.")
            return http_response(request, answer, method)
        if (refusal := self._refuse(request, method, path)) is not None:
            return http_response(request, refusal, method)
        if is_upgrade(request):
            return None
        return http_response(request, await self._answer(path), method)

    def _refuse(self, request: Request, method: str, path: str) -> HttpAnswer | None:
        hosts = request.headers.get_all("Host")
        if len(hosts) != 1 or not is_local(hosts[0]):
            # DNS rebinding: a hostile page whose name resolves to 127.0.0.1 would pass the Origin check, so
            # the Host header is checked too.
            return _plain(HTTPStatus.MISDIRECTED_REQUEST, "This server answers to localhost only.")
        if method not in ("GET", "HEAD"):
            return _plain(HTTPStatus.METHOD_NOT_ALLOWED, "Only GET and HEAD are answered.")
        if is_upgrade(request):
            if path not in SOCKET_PATHS:
                return _plain(HTTPStatus.NOT_FOUND, "The websocket is at /ws.")
            if not same_origin(request.headers.get_all("Origin"), hosts[0]):
                return _plain(HTTPStatus.FORBIDDEN, "Pages of other origins may not connect.")
        return None

    async def _answer(self, path: str) -> HttpAnswer:
        if path == "/healthz":
            return _plain(HTTPStatus.OK, "ok")
        if path == "/readyz":
            ready = self._board.ready
            status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
            report = {"ready": ready, "stages": self._board.states(), "warm": self._board.warm_workers()}
            return _json(report, status)
        if path == "/metrics":
            return HttpAnswer(self._metrics(), CONTENT_TYPE_LATEST)
        if path == "/avatars.json":
            return _json(self._catalogue())
        if path in self._files:
            return self._files[path]
        return await self._thumbnail(path) or _plain(
            HTTPStatus.NOT_FOUND, "There is nothing at this address."
        )

    async def _thumbnail(self, path: str) -> HttpAnswer | None:
        folder, _, file = path.rpartition("/")
        name, dot, suffix = unquote(file).rpartition(".")
        if folder == "/avatars" and dot and suffix == "png":
            body = await self._thumbnails.avatar(name, self._board.size)
            return HttpAnswer(body, "image/png", cached=True) if body else None
        if folder in ("/poses", "/poses/live") and dot and suffix == "svg":
            body = await self._thumbnails.pose(name, live=folder == "/poses/live")
            return HttpAnswer(body, "image/svg+xml", cached=True) if body else None
        return None


def is_upgrade(request: Request) -> bool:
    """Whether a request asks for a websocket."""
    return any("websocket" in value.lower() for value in request.headers.get_all("Upgrade"))


def is_local(host: str) -> bool:
    """Whether a Host header names this machine."""
    try:
        parts = urlsplit(f"//{host}")
        return parts.hostname in LOCAL_NAMES and parts.netloc == host and parts.username is None
    except ValueError:
        return False


def same_origin(origins: list[str], host: str) -> bool:
    """Whether an upgrade comes from a page of this server, or has no Origin and so comes from no browser."""
    if not origins:
        return True
    return len(origins) == 1 and origins[0].lower() in (f"http://{host}".lower(), f"https://{host}".lower())


def _page_files(folder: Path) -> dict[str, HttpAnswer]:
    """Every file of the page by its path. No other file can be asked for."""
    files = {
        "/" + file.relative_to(folder).as_posix(): HttpAnswer(
            file.read_bytes(), TYPES[file.suffix], cached=True
        )
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.suffix in TYPES
    }
    files["/"] = files["/index.html"]
    if "/icon.svg" in files:
        files["/favicon.ico"] = files["/icon.svg"]
    return files


def _plain(status: int, text: str) -> HttpAnswer:
    return HttpAnswer(f"{text}\n".encode(), status=status)


def _json(value: object, status: int = HTTPStatus.OK) -> HttpAnswer:
    return HttpAnswer(json.dumps(value).encode(), JSON, status)


def http_response(request: Request, answer: HttpAnswer, method: str = "GET") -> Response:
    """`answer` with its headers. The body is left out for HEAD, and when the client has it already."""
    status, body = answer.status, answer.body
    headers = Headers()
    headers["Date"] = formatdate(usegmt=True)
    headers["Connection"] = "close"
    for name, value in SECURITY_HEADERS.items():
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
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = "GET, HEAD"
    if status != HTTPStatus.NOT_MODIFIED:
        headers["Content-Type"] = answer.kind
        headers["Content-Length"] = str(len(body))
    return Response(int(status), HTTPStatus(status).phrase, headers, b"" if method == "HEAD" else body)
