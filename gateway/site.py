"""The addresses that the gateway answers by plain HTTP, and the admission of websocket upgrades."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, quote, unquote

from prometheus_client import CONTENT_TYPE_LATEST
from websockets.http11 import Request, Response

from gateway.answers import (
    HttpAnswer,
    http_response,
    is_upgrade,
    json_answer,
    method_of,
    plain,
    security_headers,
    sharing_headers,
)
from gateway.avatars.service import BodyReader, OwnAvatars
from gateway.door.credentials import QUERY_NAME, token_of
from gateway.door.guard import ANY, Grant, Guard
from gateway.door.minting import MintError
from gateway.door.refusals import Refusal, RefusalLog, Refused
from gateway.door.rules import Door, Visitor
from gateway.recording.site import ACTIONS, RecordingSite
from gateway.stages import StageBoard
from gateway.thumbnails import Thumbnails

PAGE = Path(__file__).parent / "page"
#: The client for JavaScript, on which the page is built. It is a package of its own.
CLIENT = Path(__file__).parents[1] / "clients/js/client"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webmanifest": "application/manifest+json",
}
SOCKET_PATHS = ("/", "/ws")
#: Files that pages of other sites load, besides the client: the web component, the worklet that reads streams
#: for it, and the face alone, which `frame-ancestors` guards.
PUBLIC_FILES = ("/echomimic-face.js", "/capture-worklet.js", "/embed.html")
#: Where a page learns whether it may connect. It is answered whatever the Host and the Origin are.
DOOR_PATH = "/door.json"
#: Where a program mints tokens for browsers.
MINT_PATH = "/tokens"
#: Folders of the pictures of avatars and poses.
PICTURES = ("/avatars/", "/poses/")
#: Characters of a query that stay as they are, besides letters, digits and `_.-~`.
QUERY_CHARACTERS = "%/?:@!$&'()*+,;="
#: Most fields of a query that is read.
MAX_FIELDS = 32
BUSY = Refusal("busy", "Too many connections are open. Try again soon.")

#: Answers a POST.
PostHandler = Callable[[Visitor, Request], Awaitable[HttpAnswer]]


@dataclass(frozen=True, slots=True)
class ConnectionEnds:
    """The ends of a connection: numeric addresses, empty where the connection is gone."""

    address: str
    local: str
    tls: bool = False


class Site:
    """The addresses that the gateway answers."""

    def __init__(
        self,
        door: Door,
        guard: Guard,
        board: StageBoard,
        thumbnails: Thumbnails,
        metrics: Callable[[], bytes],
        catalogue: Callable[[Grant], dict[str, object]],
        is_busy: Callable[[], bool],
        refused: Counter[str],
        own_avatars: OwnAvatars,
        recordings: RecordingSite | None = None,
    ) -> None:
        """Read the page's files.

        Args:
            door: judges each request by where it comes from.
            guard: judges the token of each request.
            board: the stages' state, for /readyz.
            thumbnails: pictures of avatars and poses.
            metrics: makes the text of /metrics.
            catalogue: makes the object of /avatars.json for a visitor with these rights.
            is_busy: whether there is no room for another websocket.
            refused: counts the requests that are refused, by code.
            own_avatars: the avatars that people bring.
            recordings: answers for the recordings, if there are any.
        """
        self._door = door
        self._guard = guard
        self._board = board
        self._thumbnails = thumbnails
        self._metrics = metrics
        self._catalogue = catalogue
        self._is_busy = is_busy
        self._refused = refused
        self._own_avatars = own_avatars
        self._files = _page_files()
        self._headers = security_headers(door.embedders)
        self._refusals = RefusalLog(time.monotonic)
        #: Addresses that take a POST.
        self._posts: dict[str, PostHandler] = {MINT_PATH: self._mint}
        self._posts |= dict.fromkeys(ACTIONS if recordings else (), self._act_on_recording)
        self._recordings = recordings

    async def respond(
        self, request: Request, peer: ConnectionEnds, read_body: BodyReader
    ) -> Response | Grant:
        """The response to a request, or the rights of a websocket upgrade that may go on.

        Args:
            request: its head.
            peer: the ends of its connection.
            read_body: reads its body.
        """
        shared_with = None
        try:
            visitor = self._door.visitor(request, peer.address, peer.local, peer.tls)
            shared_with = self._door.shared_with(visitor)
            if visitor.path == DOOR_PATH and not is_upgrade(request):
                answer = self._tell_door(visitor, request)
            else:
                if (refusal := self._door.host_refusal(visitor)) is not None:
                    raise Refused(refusal)
                if not is_upgrade(request):
                    answer = await self._answer(visitor, request, read_body)
                elif (problem := _misplaced_upgrade(visitor, request)) is not None:
                    answer = problem
                else:
                    return self._admit_socket(visitor, request, visitor.origins)
        except Refused as refused:
            self._refusals.add(refused.refusal)
            self._refused[refused.refusal.code] += 1
            answer = plain(refused.refusal.status, refused.refusal.message, refused.refusal.headers)
        headers = {**self._headers, **sharing_headers(answer, shared_with)}
        return http_response(request, answer, headers)

    def _admit_socket(self, visitor: Visitor, request: Request, origins: tuple[str, ...]) -> Grant:
        """The rights of a websocket that a page of these origins opens.

        Raises:
            Refused: it may not be opened.
        """
        if (refusal := self._door.origin_refusal(visitor, origins)) is not None:
            raise Refused(refusal)
        grant = self._rights(visitor, request, "session")
        if self._is_busy():
            raise Refused(BUSY)
        return grant

    def _rights(self, visitor: Visitor, request: Request, scope: str) -> Grant:
        """The rights of the request's token. Raises Refused where it may not do what needs the scope."""
        return self._guard.check(token_of(request.headers, visitor.query), visitor.address, scope)

    def _tell_door(self, visitor: Visitor, request: Request) -> HttpAnswer:
        """Whether the page that asks may connect, and if not, why.

        A page cannot read the answer to a refused upgrade, and a browser sends no Origin with a request of a
        page to its own server. So the page names its origin in the query.
        """
        named = tuple(parse_qs(visitor.query).get("origin", visitor.origins))
        refusal = self._door.host_refusal(visitor)
        if refusal is None:
            try:
                self._admit_socket(visitor, request, named)
            except Refused as refused:
                refusal = refused.refusal
        # Nothing is logged: the refused upgrade was, and any page could fill the log with invented origins.
        told = {
            "open": refusal is None,
            "code": refusal.code if refusal else "",
            "message": refusal.message if refusal else "",
        }
        return json_answer(told, public=True)

    async def _answer(self, visitor: Visitor, request: Request, read_body: BodyReader) -> HttpAnswer:
        method, path = method_of(request), visitor.path
        own = self._own_avatars.methods(path)
        allowed = ["GET", "HEAD", "OPTIONS", *own, *(["POST"] if path in self._posts else [])]
        if method not in allowed:
            return _wrong_method(allowed)
        if method == "OPTIONS":
            return self._options(visitor, ", ".join(allowed))
        if method in own:
            # A page of another site may not change anything here, with a token or without.
            if (refusal := self._door.origin_refusal(visitor, visitor.origins)) is not None:
                raise Refused(refusal)
            grant = self._rights(visitor, request, "avatars")
            return await self._own_avatars.change(method, path, _fields(visitor.query), grant, read_body)
        if method == "POST":
            return await self._posts[path](visitor, request)
        if path == self._door.prefix and path:
            # Relative addresses on the page need the slash.
            # The query comes from the client, and a header takes no control characters.
            query = f"?{quote(visitor.query, safe=QUERY_CHARACTERS)}" if visitor.query else ""
            where = [("Location", f"{path}/{query}")]
            return plain(HTTPStatus.PERMANENT_REDIRECT, "The page is one slash further.", where)
        return await self._get(visitor, request)

    def _options(self, visitor: Visitor, allowed: str) -> HttpAnswer:
        """The methods of an address. A page of `--allowed-origins` asks before it sends a token (CORS)."""
        headers = [("Allow", allowed)]
        if self._door.shared_with(visitor) is not None:
            headers += [
                ("Access-Control-Allow-Methods", allowed),
                ("Access-Control-Allow-Headers", "Authorization, Content-Type"),
                ("Access-Control-Max-Age", "600"),
            ]
        return HttpAnswer(b"", status=HTTPStatus.NO_CONTENT, headers=tuple(headers))

    async def _get(self, visitor: Visitor, request: Request) -> HttpAnswer:
        path = visitor.path
        if path in self._files:  # they hold nothing secret, and a page must be there to ask for a token
            return self._files[path]
        if path == "/healthz":
            return plain(HTTPStatus.OK, "ok")
        if path == "/readyz":
            return self._readiness(visitor, request)
        if path == "/metrics":
            self._rights(visitor, request, "metrics")
            return HttpAnswer(self._metrics(), CONTENT_TYPE_LATEST)
        if path == "/avatars.json":
            return json_answer(self._catalogue(self._rights(visitor, request, "session")))
        if path == MINT_PATH:
            return await self._mint(visitor, request)
        if self._recordings is not None and self._recordings.has(path):
            rights = self._rights(visitor, request, "session")
            return await self._recordings.get(path, visitor.query, request, rights)
        wanted = path == "/avatars" or path.startswith(PICTURES)
        grant = self._rights(visitor, request, "session") if wanted else None
        answer = await self._picture(path, grant) if grant else None
        return answer or plain(HTTPStatus.NOT_FOUND, "There is nothing at this address.")

    def _readiness(self, visitor: Visitor, request: Request) -> HttpAnswer:
        """Whether sessions can be served. Only this machine and holders of a token learn about the stages."""
        ready = self._board.ready
        report: dict[str, object] = {"ready": ready}
        carried = token_of(request.headers, visitor.query) is not None
        local = visitor.on_this_machine
        if carried and not local:
            self._rights(visitor, request, ANY)
        if carried or local or not self._guard.asks:
            report |= {"stages": self._board.states(), "warm": self._board.warm_workers()}
        return json_answer(report, HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE)

    async def _mint(self, visitor: Visitor, request: Request) -> HttpAnswer:
        """A browser's token for a program. Its own token comes in the header: addresses get into logs."""
        token = token_of(request.headers, "")
        fields = _fields(visitor.query)
        if QUERY_NAME in fields:
            return plain(HTTPStatus.BAD_REQUEST, "Send the token in the header: Authorization: Bearer TOKEN.")
        grant = self._guard.check(token, visitor.address, "mint")
        try:
            return json_answer(self._guard.mint(grant, fields))
        except MintError as error:
            return plain(HTTPStatus.BAD_REQUEST, str(error))

    async def _picture(self, path: str, grant: Grant) -> HttpAnswer | None:
        return await self._own_avatars.show(path, grant) or await self._thumbnail(path, grant)

    async def _act_on_recording(self, visitor: Visitor, request: Request) -> HttpAnswer:
        assert self._recordings is not None
        grant = self._rights(visitor, request, "session")
        return self._recordings.act(visitor.path, visitor.query, grant)

    async def _thumbnail(self, path: str, grant: Grant) -> HttpAnswer | None:
        folder, _, file = path.rpartition("/")
        name, dot, suffix = unquote(file).rpartition(".")
        if folder == "/avatars" and dot and suffix == "png" and grant.may_use(name):
            body = await self._thumbnails.avatar(name, self._board.size)
            return HttpAnswer(body, "image/png", cached=True) if body else None
        if folder in ("/poses", "/poses/live") and dot and suffix == "svg":
            body = await self._thumbnails.pose(name, live=folder == "/poses/live")
            return HttpAnswer(body, "image/svg+xml", cached=True) if body else None
        return None


def _misplaced_upgrade(visitor: Visitor, request: Request) -> HttpAnswer | None:
    """The answer to an upgrade at a place where no websocket is. None at a right one."""
    if method_of(request) != "GET":
        return _wrong_method(["GET"])
    if visitor.path not in SOCKET_PATHS:
        return plain(HTTPStatus.NOT_FOUND, "The websocket is at /ws.")
    return None


def _fields(query: str) -> dict[str, str]:
    """The fields of a query. Of several with one name the last one counts."""
    try:
        return dict(parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise Refused(Refusal("bad_request", f"The query has more than {MAX_FIELDS} fields.")) from None


def _wrong_method(allowed: list[str]) -> HttpAnswer:
    listed = ", ".join(allowed)
    return plain(HTTPStatus.METHOD_NOT_ALLOWED, f"This address answers to {listed}.", [("Allow", listed)])


def _page_files() -> dict[str, HttpAnswer]:
    """Every file of the page and of its client by its path. No other file can be asked for."""
    files = {}
    for folder, prefix in ((PAGE, "/"), (CLIENT, "/client/")):
        for file in sorted(folder.rglob("*")):
            if file.is_file() and file.suffix in TYPES:
                path = prefix + file.relative_to(folder).as_posix()
                public = folder == CLIENT or path in PUBLIC_FILES
                files[path] = HttpAnswer(file.read_bytes(), TYPES[file.suffix], cached=True, public=public)
    files["/"] = files["/index.html"]
    files["/embed"] = files["/embed.html"]
    if "/icon.svg" in files:
        files["/favicon.ico"] = files["/icon.svg"]
    return files
