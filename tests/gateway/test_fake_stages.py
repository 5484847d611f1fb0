"""`python -m scripts.fake_stages` as a person starts it, on a machine without torch."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from protocol.process.settings import ROOT, Settings
from scripts.fake_stages.face import FacePainter
from tests.gateway.clients import client_v2
from tests.gateway.conftest import free_port


class Address:
    """Where the client finds the gateway."""

    def __init__(self, port: int) -> None:
        self.port = port

    def url(self, path: str = "/", scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}{path}"


def without_torch(folder: Path) -> dict[str, str]:
    """Environment of a Python that cannot import torch, nor the packages that need it."""
    hidden = ("torch", "diffusers", "transformers", "simplejpeg", "soxr", "safetensors")
    lines = "".join(f"sys.modules[{name!r}] = None\n" for name in hidden)
    (folder / "sitecustomize.py").write_text(f"import sys\n{lines}")
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    folder = tmp_path_factory.mktemp("no-torch")
    env = without_torch(folder)
    hidden = subprocess.run([sys.executable, "-c", "import torch"], env=env, capture_output=True, check=False)
    assert hidden.returncode == 1 and b"torch" in hidden.stderr
    port = free_port()
    command = [sys.executable, "-m", "scripts.fake_stages", "--size", "256"]
    flags = ["--port", str(port), "--run-dir", str(folder / "run")]
    with subprocess.Popen(
        [*command, *flags], cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == f"ready: http://127.0.0.1:{port}\n"
            yield Address(port)
        finally:
            process.send_signal(signal.SIGTERM)
            status = process.wait(10)
        assert status == 0 and not (folder / "run").exists()


def mouth_height(jpeg: bytes) -> int:
    """Rows of mouth colour in the middle of the lower face."""
    with Image.open(io.BytesIO(jpeg)) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    strip = pixels[130:185, 120:136]
    return int(((strip[..., 0] > 120) & (strip[..., 1] < 90)).any(axis=1).sum())


@pytest.mark.process
@pytest.mark.timing
async def test_it_serves_the_page_and_a_face_that_speaks(served: Address) -> None:
    with urllib.request.urlopen(served.url(), timeout=5) as answer:
        assert b'<script type="module" src="app.js">' in answer.read()
    quiet = np.zeros(8000, np.float32)
    loud = np.full(8000, 0.2, np.float32)
    loud[::2] *= -1
    async with client_v2(served, hello={"avatar": "chen"}) as client:
        await client.speak(np.concatenate([quiet, loud, quiet]))
        await client.until(lambda c: len(c.frames) == 36)
        assert [frame.pts for frame in client.frames] == [index * 16000 // 24 for index in range(36)]
        assert len(client.heard) == 24000
        heights = [mouth_height(frame.data) for frame in client.frames]
        assert max(heights[:12] + heights[24:]) < min(heights[12:24])


@pytest.mark.process
@pytest.mark.parametrize(
    ("flags", "words"),
    [(["--fps", "x"], "--fps"), (["--portraits", "gateway"], "no picture ("), (["--delay", "x"], "--delay")],
)
def test_bad_flags_end_with_status_2(flags: list[str], words: str) -> None:
    command = [sys.executable, "-m", "scripts.fake_stages", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 2 and words in done.stderr and "Traceback" not in done.stderr


def test_portraits_get_a_mouth_only_where_there_is_sound() -> None:
    painter = FacePainter(128, Settings().avatar_dir)
    assert len(painter.names) >= 4

    def pixels(loudness: float) -> npt.NDArray[np.float64]:
        with Image.open(io.BytesIO(painter.draw(1, loudness, 0.5))) as picture:
            return np.asarray(picture.convert("RGB")).astype(np.float64)

    silent, speaking = pixels(0.0), pixels(0.2)
    changed = np.abs(silent - speaking).max(axis=2) > 30
    assert changed.any() and not changed[:40].any() and not changed[90:].any()
