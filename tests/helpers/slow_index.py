"""A package index on this machine, as slow and as broken as a test wants it."""

from __future__ import annotations

import base64
import hashlib
import http.server
import io
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

#: Bytes handed over at once.
PIECE = 4096


def make_wheel(name: str, version: str, files: Mapping[str, bytes]) -> bytes:
    """A wheel for any machine. Its files are stored as they are, so that their sizes are the download's."""
    info = f"{name}-{version}.dist-info"
    # the metadata come first, as in some wheels: an interrupted installation looks like a whole one
    content = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{name}/__init__.py": f"from {name}.last import value\n".encode(),
        **{f"{name}/{path}": data for path, data in files.items()},
        f"{name}/last.py": b"value = 1\n",
    }
    rows = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for path, data in content.items()
    ]
    content[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as wheel:
        for path, data in content.items():
            wheel.writestr(path, data)
    return out.getvalue()


class SlowIndex:
    """Serves wheels under `/simple/`, at a chosen rate, with downloads that break off or stand still."""

    def __init__(self, wheels: Mapping[str, bytes], url: str) -> None:
        self.wheels = dict(wheels)
        self.url = f"{url}/simple"
        #: Bytes a second of a download. 0: no limit.
        self.rate = 0
        #: How many downloads from now on are cut off in the middle, and how many stand still there.
        self.broken = 0
        self.silent = 0
        #: Requests by path.
        self.asked: Counter[str] = Counter()
        self.stopped = threading.Event()

    def page(self, path: str) -> bytes | None:
        """The page or the wheel at a path."""
        parts = path.strip("/").split("/")
        if len(parts) == 2 and parts[0] == "simple":
            names = [file for file in self.wheels if file.split("-")[0] == parts[1]]
            return "".join(f'<a href="/files/{n}">{n}</a>\n' for n in names).encode() if names else None
        return self.wheels.get(parts[1]) if len(parts) == 2 and parts[0] == "files" else None


@contextmanager
def serve_index(wheels: Mapping[str, bytes]) -> Iterator[SlowIndex]:
    """An index with these wheels, by their files' names."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            index.asked[self.path] += 1
            body = index.page(self.path)
            self.send_response(404 if body is None else 200)
            self.send_header("Content-Type", "text/html" if "/simple/" in self.path else "application/zip")
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            if body and "/files/" in self.path and self.command == "GET":
                self._send_slowly(body)
            elif body and self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET

        def _send_slowly(self, body: bytes) -> None:
            broken, silent = index.broken > 0, index.silent > 0
            index.broken -= broken
            index.silent -= silent and not broken
            began, sent = time.monotonic(), 0
            while sent < len(body) and not index.stopped.is_set():
                if sent > len(body) // 2 and (broken or silent):
                    self.close_connection = True
                    if not broken:
                        index.stopped.wait(30)
                    return
                try:
                    self.wfile.write(body[sent : sent + PIECE])
                except OSError:  # the client was killed
                    self.close_connection = True
                    return
                sent += PIECE
                if index.rate:
                    index.stopped.wait(max(0.0, began + sent / index.rate - time.monotonic()))

        def log_message(self, *_args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    index = SlowIndex(wheels, f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield index
    finally:
        index.stopped.set()
        server.shutdown()
        thread.join()
        server.server_close()
