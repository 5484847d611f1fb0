"""The page while nobody speaks: the face lives on, and costs little."""

from __future__ import annotations

import asyncio
import os
import wave
from pathlib import Path

import numpy as np
import pytest

from protocol.process.settings import ROOT
from scripts.bench.common.tools import UsageMeter, settle
from scripts.bench.common.turns import LOOP_SECONDS, in_room
from scripts.run.managed import ManagedRun
from tests.gateway.conftest import running
from tests.helpers.chromium import Chromium, Page, find_chromium
from tests.helpers.voice import needs_espeak, voice_worker

pytestmark = [
    pytest.mark.process,
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)"),
]
#: A sum over the middle of the canvas, where the face is.
PICTURE = """(() => {
  const canvas = document.querySelector('#canvas'), [w, h] = [canvas.width, canvas.height];
  const pixels = canvas.getContext('2d').getImageData(0, 0, w, h).data;
  return pixels.reduce((sum, value, place) => (sum * 31 + value * (place % 7)) % 1000000007, 0);
})()"""
SHOWN = "window.echomimic.stats.shown"


async def pictures_in(page: Page, seconds: float, looks: int) -> tuple[int, int]:
    """How many different pictures the canvas shows at so many looks, and the frames shown meanwhile."""
    before = await page.evaluate(SHOWN)
    seen = set()
    for _ in range(looks):
        seen.add(await page.evaluate(PICTURE))
        await asyncio.sleep(seconds / looks)
    return len(seen), await page.evaluate(SHOWN) - before


@needs_espeak
async def test_the_face_lives_on_after_a_text() -> None:
    """The page sends no sound then."""
    portraits = ROOT / "demo/bundled/avatars"
    with (
        running(portraits, max_sessions=1, voice_engine="espeak-ng") as run,
        voice_worker(run.settings),
    ):
        async with Chromium() as browser:
            page = await browser.open(run.url("/"))
            await page.until("window.echomimic?.state === 'idle'")
            await page.evaluate("document.querySelector('#say-text').value = 'Hello.'")
            await page.evaluate("document.querySelector('#say').requestSubmit()")
            await page.until(f"window.echomimic.stats && {SHOWN} > 6")
            await page.until("document.querySelector('#say').dataset.speaking === 'false'")
            await asyncio.sleep(1.0)
            different, frames = await pictures_in(page, 2.0, 10)
            assert different >= 6 and frames >= 24, (different, frames)
            assert page.problems == []


@pytest.mark.long
async def test_a_silent_room_is_lively_and_cheap(tmp_path: Path) -> None:
    """The bundled model, and a microphone in a quiet room. Its pictures come from the loop."""
    room = tmp_path / "room.wav"
    sound = in_room(np.zeros(16000 * 4, np.float32), 5)
    with wave.open(str(room), "wb") as file:
        file.setparams((1, 2, 16000, 0, "NONE", ""))
        file.writeframes((sound * 32767).astype("<i2").tobytes())
    shots = Path(os.environ.get("IDLE_SHOTS", tmp_path))
    with ManagedRun("--fps", "24", "--clip-frames", "4", "--max-sessions", "1", timeout=300) as run:
        settle([run.process.pid])
        async with Chromium(microphone=room) as browser:
            page = await browser.open(run.url)
            await page.size(1100, 760)
            await page.until("window.echomimic?.state === 'idle'")
            await page.click("#start")
            await page.until(f"window.echomimic.stats && {SHOWN} > {24 * LOOP_SECONDS}", 90)
            await page.screenshot(shots / "idle-1.png")
            with UsageMeter([run.process.pid]) as meter:
                different, frames = await pictures_in(page, 8.0, 16)
            await page.screenshot(shots / "idle-2.png")
            assert page.problems == []
        samples = run.metrics()
    silent = sum(value for _, value in samples["echomimic_stage_clips_at_rest_total"])
    spent = sum(meter.spent.values()) / 8.0
    print(
        f"{different} of 16 pictures differ, {frames / 8.0:.1f} fps, {spent:.3f} processor seconds a second"
    )
    assert different >= 12 and frames >= 8 * 16, (different, frames)
    assert silent >= 6 and spent < 0.25, (silent, spent)
    assert (shots / "idle-1.png").read_bytes() != (shots / "idle-2.png").read_bytes()
