"""The plugins for Pipecat and LiveKit in their own frameworks, judged at the receiving end.

`scripts/test_plugins.sh` makes an environment with both frameworks and runs these tests.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import numpy as np
import pytest

from protocol.process.settings import ROOT
from tests.gateway.conftest import Running, free_port
from tests.helpers.chromium import Chromium, Page, find_chromium
from tests.helpers.waiting import wait_for

#: A Python that has pipecat-ai[webrtc] and livekit-agents.
PYTHON = os.environ.get("ECHOMIMIC_PLUGINS_PYTHON", "")
PROGRAMS = ROOT / "tests/clients/plugins"
WORDS = "Amber apples and other autumn colours are all about us, are they not? " * 3

pytestmark = [
    pytest.mark.long,
    pytest.mark.process,
    pytest.mark.timing,
    pytest.mark.skipif(not PYTHON, reason="needs ECHOMIMIC_PLUGINS_PYTHON: scripts/test_plugins.sh"),
    pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="needs espeak-ng"),
]

#: A curve over time: milliseconds and values, shape (n, 2).
Curve = np.ndarray


def offset_ms(pictures: Curve, sounds: Curve) -> tuple[float, float]:
    """By how much the mouth moves after the sound, in milliseconds, and how alike the two are at that."""
    begin, end = max(pictures[0, 0], sounds[0, 0]), min(pictures[-1, 0], sounds[-1, 0])
    times = np.arange(begin + 500, end - 500, 5.0)
    # A picture stays until the next one.
    mouth = pictures[np.searchsorted(pictures[:, 0], times, "right") - 1, 1]

    def loudness(shift: float) -> np.ndarray:
        smooth = np.convolve(sounds[:, 1], np.ones(4) / 4, "same")
        return np.interp(times - shift, sounds[:, 0], smooth)

    alike = {shift: float(np.corrcoef(mouth, loudness(shift))[0, 1]) for shift in range(-400, 401, 5)}
    best = max(alike, key=lambda shift: alike[shift])
    return best, alike[best]


@contextmanager
def program(name: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program of the plugins' environment, ended at the end."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients/python")}
    process = subprocess.Popen([PYTHON, str(PROGRAMS / name), *arguments], env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait(10)


def post(port: int, path: str, body: str = "") -> None:
    urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", body.encode(), timeout=10).read()


def answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=1).read()
    except OSError:
        return False
    return True


@asynccontextmanager
async def receiver(gateway: Running) -> AsyncIterator[tuple[Page, int]]:
    """A browser in a call with a pipeline that has this gateway's face, and the pipeline's port."""
    port = free_port()
    with program("pipecat_call.py", gateway.url(), str(port)):
        assert wait_for(lambda: answers(port), 60)
        async with Chromium() as browser:
            page = await browser.open(f"http://127.0.0.1:{port}/")
            await page.until("window.call?.heard.length > 20", 30)
            yield page, port


async def say(page: Page, port: int) -> None:
    """Let the face speak, and return when it is heard."""
    await asyncio.to_thread(post, port, "/say", WORDS)
    await page.until("call.heard.some(([, loudness]) => loudness > 0.02)", 20)


async def curves(page: Page) -> tuple[Curve, Curve]:
    told = json.loads(await page.evaluate("JSON.stringify([call.seen, call.heard])"))
    return np.array(told[0]), np.array(told[1])


@pytest.mark.skipif(find_chromium() is None, reason="needs chromium")
async def test_pipecat_lips_and_sound_agree_in_the_browser(
    gateway: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    async with receiver(gateway) as (page, port):
        await say(page, port)
        await asyncio.sleep(8)
        offset, alike = offset_ms(*await curves(page))
    with capsys.disabled():
        print(f"\npipecat: the mouth is {offset:+.0f} ms after the sound (correlation {alike:.2f})")
    assert alike > 0.5 and abs(offset) <= 80


@pytest.mark.skipif(find_chromium() is None, reason="needs chromium")
async def test_pipecat_is_interrupted_in_the_middle(
    gateway: Running, capsys: pytest.CaptureFixture[str]
) -> None:
    async with receiver(gateway) as (page, port):
        await say(page, port)
        await asyncio.sleep(2)
        now = await page.evaluate("call.now()")
        await asyncio.to_thread(post, port, "/interrupt")
        await asyncio.sleep(2)
        _, sounds = await curves(page)
        last = sounds[sounds[:, 1] > 0.01][-1, 0] - now
        await page.evaluate("call.clear()")
        await say(page, port)
        await asyncio.sleep(6)
        offset, alike = offset_ms(*await curves(page))
    with capsys.disabled():
        print(f"\npipecat: silent {last:.0f} ms after the interruption; then {offset:+.0f} ms, {alike:.2f}")
    assert last < 1000 and alike > 0.5 and abs(offset) <= 80


def test_livekit_pictures_sound_and_the_ends_of_segments(
    gateway: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = tmp_path / "told.json"
    with program("livekit_avatar.py", gateway.url(), WORDS, str(told)) as process:
        assert process.wait(120) == 0
    report = json.loads(told.read_text())
    offset, alike = offset_ms(np.array(report["seen"]), np.array(report["heard"]))
    with capsys.disabled():
        print(f"\nlivekit: the mouth is {offset:+.0f} ms after the sound (correlation {alike:.2f})")
    assert report["finished"] == [False, True, False], "two segments to their ends, one interrupted"
    assert alike > 0.5 and abs(offset) <= 80
