"""The page in a real browser over the default run, with a recording as its microphone."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gateway.site import CLIENT, PAGE
from protocol.process.settings import ROOT
from scripts.run.managed import ManagedRun
from scripts.talk.live import server_info
from scripts.talk.sound import write_wav
from tests.helpers.chromium import Chromium, Page, find_chromium
from tests.integration.conftest import Sound

pytestmark = [
    pytest.mark.process,
    pytest.mark.browser,
    pytest.mark.timing,
    pytest.mark.skipif(find_chromium() is None, reason="no Chromium on this machine"),
]

#: Names of XML vocabularies and of a term. Nobody fetches them.
NAMES_OF_XML = re.compile(r"http://(www\.w3\.org|ns\.adobe\.com|iptc\.org/std|cv\.iptc\.org/newscodes)/")


async def test_the_face_speaks_in_step_with_the_microphone(
    default_run: ManagedRun, speech: Sound, tmp_path: Path
) -> None:
    microphone = tmp_path / "microphone.wav"
    write_wav(microphone, speech)
    screenshot = ROOT / "logs/page.png"
    async with Chromium(microphone=microphone) as browser:
        page = await browser.open(default_run.url)
        await page.size(1280, 860)
        await page.until("!document.querySelector('#start').disabled", 20)
        await page.click("#start")
        fps = int(server_info(default_run.url)["fps"])
        await page.until(f"window.echomimic.stats && window.echomimic.stats.shown > {4 * fps}", 60)
        pictures = [await canvas(page) for _ in range(8)]
        await page.screenshot(screenshot)
        figures = json.loads(await page.evaluate("JSON.stringify(window.echomimic.stats)"))
        problems = list(page.problems)
    print({name: figures[name] for name in ("fps", "latencyMs", "offsetMs", "worstOffsetMs", "drops")})
    assert problems == []
    assert abs(figures["offsetMs"]) <= 40
    assert figures["fps"] > 0.5 * fps  # the browser takes its share of the machine too
    moves = [np.abs(a - b).max() for a, b in pairwise(pictures)]
    assert max(moves) > 20, "the picture on the page moves"
    assert Image.open(screenshot).size == (1280, 860)


async def canvas(page: Page) -> np.ndarray:
    """The picture on the page's canvas, as grey levels."""
    data = await page.evaluate("document.querySelector('#canvas').toDataURL('image/png')")
    await asyncio.sleep(0.15)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))).convert("L"), np.float32)


def test_the_page_brings_everything_itself() -> None:
    """No address of another host anywhere in the page's files."""
    for file in (path for folder in (PAGE, CLIENT) for path in folder.rglob("*")):
        if file.suffix in (".html", ".js", ".css"):
            text = NAMES_OF_XML.sub("", file.read_text())
            assert "http://" not in text, file
            assert "https://" not in text, file
