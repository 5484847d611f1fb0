"""A real nginx with the project's example configuration, in a folder of its own and on free ports."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from protocol.process.settings import ROOT

EXAMPLE = ROOT / "deploy/nginx.conf"

#: Around the example, as /etc/nginx/nginx.conf is around the files of conf.d.
_MAIN = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log {folder}/main-error.log;
events {{ worker_connections 64; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/example.conf;
}}
"""


@dataclass(frozen=True)
class Nginx:
    """A running nginx."""

    https_port: int
    http_port: int
    folder: Path

    def logs(self) -> str:
        """The text of all its logs."""
        return "".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


def find_nginx() -> str | None:
    """The program's path, or None where there is none. Debian has it where only root's path leads."""
    return shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")


@contextmanager
def running_nginx(
    folder: Path, gateway_port: int, ports: tuple[int, int], changes: Mapping[str, str] | None = None
) -> Iterator[Nginx]:
    """nginx with the example, in which ports, files and `changes` are put.

    Args:
        folder: for its files, with `cert.pem` and `key.pem`.
        gateway_port: where the gateway listens, on 127.0.0.1.
        ports: free ports for HTTPS and HTTP.
        changes: text of the example → other text.
    """
    program = find_nginx()
    assert program is not None
    told = {
        "listen 443 ssl;": f"listen 127.0.0.1:{ports[0]} ssl;",
        "listen 80;": f"listen 127.0.0.1:{ports[1]};",
        "/etc/letsencrypt/live/face.example/fullchain.pem": str(folder / "cert.pem"),
        "/etc/letsencrypt/live/face.example/privkey.pem": str(folder / "key.pem"),
        "/etc/letsencrypt/live/www.example/fullchain.pem": str(folder / "cert.pem"),
        "/etc/letsencrypt/live/www.example/privkey.pem": str(folder / "key.pem"),
        "/var/log/nginx": str(folder),
    }
    text = EXAMPLE.read_text()
    # The changes first: they are in the words of the shipped file.
    for old, new in {**(changes or {}), **told, "127.0.0.1:8080": f"127.0.0.1:{gateway_port}"}.items():
        assert old in text, f"the example has no {old!r}"
        text = text.replace(old, new)
    (folder / "example.conf").write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""  # its workers write into our folder
    (folder / "nginx.conf").write_text(_MAIN.format(folder=folder, user=user))
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", str(folder / "start.log")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            _wait_for(ports[0], process)
            yield Nginx(*ports, folder)
        finally:
            process.terminate()
            process.wait(5)


def _wait_for(port: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if process.poll() is not None:
            raise AssertionError(process.stderr.read() if process.stderr else "nginx ended")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("nginx does not listen")
