"""A server on loopback that speaks the Hugging Face Hub's HTTP, with faults on demand.

It does what the client needs of the Hub: `HEAD` and `GET` of `/{repository}/resolve/{revision}/{file}`. A
large file's content lies at another host name, as on the Hub, where a redirect with `X-Linked-Etag` and
`X-Linked-Size` leads. Small ones are sent at once, with git's SHA-1 as their ETag. Ranges are served.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

#: Bytes from which a file is a large one.
LARGE = 1500
COMMIT = "c0ffee" + "0" * 34

_RESOLVE = re.compile(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_STORE = re.compile(r"/store/([^/]+/[^/]+)/(.+)")


@dataclass
class Fault:
    """The way in which a file is served wrongly.

    Attributes:
        status: the answer to everything, with `code` as the Hub's X-Error-Code.
        code: see `status`.
        cut_after: bytes of an answer after which the connection is broken off.
        reset: whether it is broken off by a reset, not by an end.
        times: answers that are cut. Later ones are whole.
        hold_after: bytes after which nothing comes until the server is let go on.
        rate: bytes a second.
        altered: whether another content is sent than the sum says, of the same length.
        no_sum: whether the ETag is words of a mirror's own.
        no_ranges: whether a range is answered with everything.
    """

    status: int = 0
    code: str = ""
    cut_after: int | None = None
    reset: bool = False
    times: int = 1
    hold_after: int | None = None
    rate: float = 0.0
    altered: bool = False
    no_sum: bool = False
    no_ranges: bool = False


@dataclass(frozen=True)
class Request:
    """A request that came."""

    method: str
    path: str
    range: str
    authorization: str


@dataclass
class HubServer:
    """The server, as a context manager.

    Attributes:
        repositories: content by file and repository.
        faults: by file (`repository/name`). "*" is for all.
        renamed: the repositories' names of today by their old ones.
        portal: whether every answer is the page of a network's login.
        requests: those that came.
    """

    repositories: Mapping[str, Mapping[str, bytes]]
    faults: dict[str, Fault] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    portal: bool = False
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> HubServer:
        outer = self

        class Handler(_Handler):
            hub = outer

        self.go_on = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fault_of(self, repository: str, name: str) -> Fault:
        """The file's fault. One without an effect where it has none."""
        return self.faults.get(f"{repository}/{name}") or self.faults.get("*") or Fault()

    def gets(self, name: str) -> list[Request]:
        """The requests for the content of files with this name, in order."""
        return [r for r in self.requests if r.method == "GET" and r.path.endswith(name)]


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        range_, authorization = self.headers.get("Range", ""), self.headers.get("Authorization", "")
        self.hub.requests.append(Request(self.command, self.path, range_, authorization))
        if self.hub.portal:
            self._send(200, b"<!DOCTYPE html><html>Please sign in.</html>", {"Content-Type": "text/html"})
            return
        resolve, store = _RESOLVE.fullmatch(self.path), _STORE.fullmatch(self.path)
        if resolve:
            self._resolve(*resolve.groups())
        elif store:
            repository, name = store.groups()
            content = self.hub.repositories[repository][name]
            self._send_content(content, self.hub.fault_of(repository, name))
        else:
            self._error(404, "RepoNotFound")

    def _resolve(self, repository: str, revision: str, name: str) -> None:
        if repository in self.hub.renamed:
            path = f"/{self.hub.renamed[repository]}/resolve/{revision}/{name}"
            self._send(307, b"", {"Location": path})
            return
        fault = self.hub.fault_of(repository, name)
        files = self.hub.repositories.get(repository)
        if fault.status:
            self._error(fault.status, fault.code)
        elif files is None:
            self._error(401, "RepoNotFound")
        elif name not in files or revision not in ("main", COMMIT):
            self._error(404, "EntryNotFound" if revision in ("main", COMMIT) else "RevisionNotFound")
        else:
            self._found(repository, name, files[name], fault)

    def _found(self, repository: str, name: str, content: bytes, fault: Fault) -> None:
        small = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        large = hashlib.sha256(content).hexdigest()
        if len(content) < LARGE:
            headers = {"ETag": '"mirror-1"' if fault.no_sum else f'"{small}"', "X-Repo-Commit": COMMIT}
            self._send_content(content, fault, headers)
            return
        linked = "mirror-1" if fault.no_sum else large
        headers = {
            "Location": f"http://localhost:{self.hub.port}/store/{repository}/{name}",
            "X-Linked-Size": str(len(content)),
            "X-Linked-Etag": f'"{linked}"',
            "X-Repo-Commit": COMMIT,
            "ETag": f'"{small}"',
        }
        self._send(302, b"", headers)

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"no", {"X-Error-Code": code} if code else {})

    def _send_content(self, content: bytes, fault: Fault, headers: Mapping[str, str] | None = None) -> None:
        if fault.altered:
            content = bytes([content[0] ^ 1]) + content[1:]
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and not fault.no_ranges:
            start = int(wanted[1])
            span = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"}
            self._send(206, content[start:], {**(headers or {}), **span}, fault)
        else:
            self._send(200, content, {**(headers or {}), "Accept-Ranges": "bytes"}, fault)

    def _send(self, status: int, body: bytes, headers: Mapping[str, str], fault: Fault | None = None) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        with contextlib.suppress(OSError):  # the client has gone
            for piece in self._pieces(body, fault or Fault()):
                self.wfile.write(piece)

    def _pieces(self, body: bytes, fault: Fault) -> Iterator[bytes]:
        if fault.cut_after is not None and fault.times > 0:
            fault.times -= 1
            yield body[: fault.cut_after]
            self.wfile.flush()
            self.close_connection = True
            if fault.reset:  # closing without time to linger, and before Python's own shutdown
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                time.sleep(0.1)  # what was sent arrives first
                with open(os.devnull, "wb") as nothing:
                    os.dup2(nothing.fileno(), self.connection.fileno())
            else:
                self.connection.shutdown(socket.SHUT_RDWR)
        elif fault.hold_after is not None:
            yield body[: fault.hold_after]
            self.wfile.flush()
            self.hub.go_on.wait(60)
            yield body[fault.hold_after :]
        elif fault.rate:
            step = max(1, int(fault.rate / 20))
            for start in range(0, len(body), step):
                yield body[start : start + step]
                time.sleep(0.05)
        else:
            yield body
