"""Plain HTTP: the page's files, health, thumbnails, and the requests that are refused."""

import http.client
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gateway.site import CLIENT, PAGE
from gateway.thumbnails import pose_svg
from protocol.process.settings import ROOT
from tests.gateway.clients import client_v2
from tests.gateway.conftest import Running, running

pytestmark = pytest.mark.process


@dataclass
class HttpReply:
    """The parts of a response that tests look at."""

    status: int
    headers: http.client.HTTPMessage
    text: bytes


def ask(run: Running, method: str, path: str, **headers: str) -> HttpReply:
    """One request and its response."""
    connection = http.client.HTTPConnection("127.0.0.1", run.settings.port, timeout=5)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    reply = HttpReply(answer.status, answer.headers, answer.read())
    connection.close()
    return reply


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html"),
        ("/index.html", "text/html"),
        ("/style.css", "text/css"),
        ("/app.js", "text/javascript"),
    ],
)
def test_page_files_have_types_and_safe_headers(gateway: Running, path: str, kind: str) -> None:
    answer = ask(gateway, "GET", path)
    assert answer.status == 200 and answer.headers["Content-Type"].startswith(kind)
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    again = ask(gateway, "GET", path, **{"If-None-Match": answer.headers["ETag"]})
    assert again.status == 304 and again.text == b""


def test_the_page_fetches_nothing_from_elsewhere() -> None:
    for file in (path for folder in (PAGE, CLIENT) for path in folder.rglob("*")):
        if file.is_file():
            text = file.read_text()
            assert not re.search(r"(src|href|import|url|fetch)\W{1,3}(https?:)?//", text), file
            assert "style=" not in text or file.suffix != ".html", file


@pytest.mark.parametrize(
    "path",
    [
        "/../__main__.py", "/%2e%2e/__main__.py", "/..%2f..%2fpyproject.toml", "//etc/passwd", "/style.css/",
        "/avatars/..%2f..%2fpyproject.png", "/avatars/nobody.png", "/poses/%00.svg", "/missing",
    ],
)  # fmt: skip
def test_nothing_else_can_be_read(gateway: Running, path: str) -> None:
    assert ask(gateway, "GET", path).status == 404


def test_methods_and_hosts(gateway: Running) -> None:
    head = ask(gateway, "HEAD", "/style.css")
    assert head.status == 200 and int(head.headers["Content-Length"]) > 100 and head.text == b""
    assert ask(gateway, "DELETE", "/").status in (400, 405)
    assert ask(gateway, "GET", "/", Host="evil.example").status == 421


def test_health_and_catalogue(gateway: Running) -> None:
    assert gateway.get("/healthz") == (200, "ok\n")
    status, body = gateway.get("/readyz")
    assert status == 200 and json.loads(body)["ready"] is True
    catalogue = json.loads(gateway.get("/avatars.json")[1])
    assert catalogue["avatars"] == ["ada", "bruno", "chen"] and catalogue["fps"] == 24
    assert list(catalogue["names"]["avatars"]) == catalogue["avatars"]
    assert list(catalogue["names"]["poses"]) == catalogue["poses"]


async def test_readiness_follows_the_stages() -> None:
    with running(dead_after=1) as run:
        run.does.warm = ("audio_worker", "encoder_worker")
        for _ in range(100):
            status, body = run.get("/readyz")
            if status == 503:
                break
            time.sleep(0.05)
        assert json.loads(body) == {
            "ready": False,
            "stages": {"audio_worker": "warm", "gpu_worker": "warming up", "encoder_worker": "warm"},
            "warm": {"audio_worker": 1, "gpu_worker": 0, "encoder_worker": 1},
        }
        async with client_v2(run) as client:
            assert (await client.closed())[0] == 1013
            assert (
                client.text("error")["code"] == "not_ready"
                and "gpu_worker" in client.text("error")["message"]
            )


@pytest.mark.parametrize(
    ("flags", "words"),
    [(["--host", "0.0.0.0"], "--host 0.0.0.0"), ([], "choose another --port"), (["--fps", "x"], "--fps")],
)
def test_addresses_that_cannot_be_had_end_with_status_2(
    gateway: Running, tmp_path: Path, flags: list[str], words: str
) -> None:
    command = [
        sys.executable,
        "-m",
        "gateway",
        "--port",
        str(gateway.settings.port),
        "--run-dir",
        str(tmp_path / "r"),
    ]
    done = subprocess.run(
        [*command, *flags], cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_pose_pictures(tmp_path: Path) -> None:
    hands = np.random.default_rng(0).random((6, 2, 21, 2), np.float32)
    score = np.ones((6, 2, 21), np.float32)
    score[:, 0, 5] = 0
    np.savez(tmp_path / "p.npz", hands=hands, hands_score=score, fps=24)
    assert pose_svg(tmp_path / "p.npz").count(b"<animate") == 2
    still = pose_svg(tmp_path / "p.npz", 1)
    assert still.startswith(b"<svg") and b"<animate" not in still
    np.savez(tmp_path / "bad.npz", hands=hands[0], hands_score=score, fps=24)
    with pytest.raises(ValueError, match="hands of shape"):
        pose_svg(tmp_path / "bad.npz")
