"""Own avatars in a real run of the bundled model: two GPU workers, one after another killed."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from protocol.process.settings import ROOT
from scripts.run.managed import ManagedRun
from tests.gateway.clients import client_v2
from tests.helpers.waiting import wait_for
from tests.integration.conftest import Sound

pytestmark = [pytest.mark.process, pytest.mark.long]

FACE = ROOT / "demo/bundled/avatars/maya.png"
PHOTO = ROOT.parent / "shared/data/reference/0014.png"


class Server:
    """A managed run as the clients of the tests take it."""

    def __init__(self, run: ManagedRun) -> None:
        self._run = run

    def url(self, path: str = "/", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self._run.port}{path}"


def bring(run: ManagedRun, picture: bytes, name: str) -> dict[str, Any]:
    request = urllib.request.Request(f"{run.url}/avatars?keep=1&name={name}", picture, method="POST")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return dict(json.load(answer))


def gpu_workers(run: ManagedRun) -> list[int]:
    return [pid for pid in run.pids() if b"gpu_worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def speaks(run: ManagedRun, avatar: str, speech: Sound) -> None:
    """A session with this avatar gets pictures."""
    async with client_v2(Server(run), hello={"avatar": avatar}) as client:
        assert client.text("ready")["avatar"] == avatar
        # A worker's first own avatar loads its encoder, and pictures that come too late are left out.
        for _ in range(40):
            await client.speak(speech[:16000])
            if len(client.frames) >= 8:
                return
        raise AssertionError(client.texts[-1])


async def test_workers_take_it_that_were_there_before_and_that_come_later(
    speech: Sound, tmp_path: Path
) -> None:
    flags = ("--own-avatar-dir", str(tmp_path / "own"), "--gpu-devices", "cpu,cpu", "--audio-workers", "2")
    with ManagedRun(*flags, timeout=300) as run:
        made = bring(run, FACE.read_bytes(), "maya")
        assert not made["warning"], made
        before = gpu_workers(run)
        assert len(before) == 2
        for _ in range(2):  # sessions take turns at the workers
            await speaks(run, made["id"], speech)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda: len(set(gpu_workers(run)) - set(before)) == 2, 60)
        ready = f"{run.url}/readyz"

        def is_ready() -> bool:
            try:
                return int(urllib.request.urlopen(ready, timeout=5).status) == 200
            except OSError:
                return False

        assert wait_for(is_ready, 120)
        await speaks(run, made["id"], speech)
        request = urllib.request.Request(f"{run.url}/avatars/{made['id']}", method="DELETE")
        urllib.request.urlopen(request, timeout=10)
        assert not list((tmp_path / "own").glob("own-*"))


@pytest.mark.skipif(not PHOTO.is_file(), reason="needs shared/data/reference")
def test_a_photo_is_warned_of(tmp_path: Path) -> None:
    """By HTTP and, for `--reference-image`, in the log."""
    flags = ("--own-avatar-dir", str(tmp_path / "own"), "--reference-image", str(PHOTO))
    with ManagedRun(*flags, timeout=300) as run:
        assert wait_for(lambda: "WARNING gateway gateway.avatars.given: avatar 0014" in run.log(), 60)
        assert "needs the official weights" in run.log()
        made = bring(run, PHOTO.read_bytes(), "photo")
        assert made["fit"]["edges"] < 0.5 and "official weights" in made["warning"]
