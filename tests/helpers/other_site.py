"""A web site of its own, whose pages hold the face. `localhost` is another site than 127.0.0.1."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KINDS = {"html": "text/html; charset=utf-8", "wav": "audio/wav", "ico": "image/x-icon"}


class OtherSite:
    """Files by their paths. A page can be added while the site is served."""

    def __init__(self, port: int) -> None:
        self.origin = f"http://localhost:{port}"
        self.files: dict[str, bytes] = {"/favicon.ico": b""}
        #: Headers of every answer, such as a Content-Security-Policy.
        self.headers: dict[str, str] = {}

    def page(self, name: str, body: str) -> str:
        """Add a page. Its address."""
        self.files[f"/{name}.html"] = (
            f"<!doctype html><meta charset=utf-8><title>{name}</title>{body}".encode()
        )
        return f"{self.origin}/{name}.html"


@contextmanager
def other_site() -> Iterator[OtherSite]:
    """A site that is served until the end of the block."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            body = site.files.get(path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", KINDS.get(path.rpartition(".")[2], "text/plain"))
            for name, value in site.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, *_: object) -> None:
            """Tests print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    site = OtherSite(server.server_port)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
