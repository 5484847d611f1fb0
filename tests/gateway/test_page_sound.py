"""Sound that fails in a browser, and files of an hour."""

from __future__ import annotations

import asyncio
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from protocol.process.settings import ROOT
from tests.gateway.conftest import Running, running
from tests.gateway.test_page import opened, speech
from tests.helpers.chromium import Chromium, Page, find_chromium

__all__ = ["speech"]

pytestmark = [
    pytest.mark.process,
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)"),
]

TROUBLE = "document.querySelector('#trouble').textContent"
#: Keeps every AudioContext that the page makes in window.contexts. The last one captures.
KEEP_CONTEXTS = """void (window.contexts = [], window.AudioContext = class extends AudioContext {
  constructor(options) { super(options); window.contexts.push(this); }
})"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Running]:
    with running(portraits=ROOT / "demo/bundled/avatars", max_sessions=3) as run:
        yield run


def write_sound(path: Path, samples: np.ndarray, rate: int = 48000) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    return path


async def frames_go_on(page: Page) -> None:
    shown = await page.evaluate("window.echomimic.stats.shown")
    await page.until(f"window.echomimic.stats.shown > {shown + 12}")


async def test_a_microphone_without_sound_is_told_and_so_is_its_end(gateway: Running, tmp_path: Path) -> None:
    tone = 0.2 * np.sin(np.arange(4 * 48000) / 30)
    sound = write_sound(tmp_path / "late.wav", np.concatenate([np.zeros(6 * 48000), tone]))
    async with opened(gateway, sound) as page:
        assert not await page.evaluate("document.querySelector('#sound').checked"), "an echo by loudspeakers"
        await page.click("#check")
        await page.until(
            "document.querySelector('#microphone-note').textContent === 'Your voice arrives.'", 12
        )
        await page.until("document.querySelector('#microphone').options.length > 1")
        level = "Number(document.querySelector('#meter-level').style.transform.match(/[\\d.]+/)[0])"
        await page.until(f"{level} > 0.2")
        await page.click("#start")
        assert await page.evaluate("document.querySelector('#meter').hidden"), "the check ends with the start"
        await page.until(f"{TROUBLE}.startsWith('No sound arrives from this microphone')", 14)
        await page.until(f"{TROUBLE} === ''", 14)
        # Another one in the middle of the session.
        await page.evaluate(
            "(() => { const s = document.querySelector('#microphone'); s.selectedIndex = 1;"
            " s.dispatchEvent(new Event('change')); })()"
        )
        await frames_go_on(page)
        assert await page.evaluate(f"window.echomimic.state === 'live' && {TROUBLE} === ''")
        assert page.problems == []


@pytest.mark.long
async def test_sound_that_stands_still_is_told_and_started_again(gateway: Running, speech: Path) -> None:
    async with opened(gateway, speech) as page:
        await page.evaluate(KEEP_CONTEXTS)
        await page.click("#sound")
        await page.click("#start")
        await page.until("window.echomimic.stats?.shown > 12 && window.contexts.length === 2")
        # The device is gone: the context says that it runs, and its time stands still. The first one plays.
        frozen = (
            "Object.defineProperty(window.contexts[0], 'currentTime', { value: contexts[0].currentTime })"
        )
        await page.evaluate(f"void {frozen}")
        await page.until(f"{TROUBLE}.startsWith('The browser\\'s sound has stopped')")
        await frames_go_on(page)
        await page.until(f"window.contexts.length > 2 && {TROUBLE} === ''", 15)
        await frames_go_on(page)
        assert abs(await page.evaluate("window.echomimic.stats.offsetMs")) < 60
        # A phone call: the browser suspends what captures, and starts it no more.
        await page.evaluate("window.contexts[1].suspend()")
        heard = len(gateway.stages.audio.received)
        await page.until(f"window.contexts[1].state === 'running' && {TROUBLE} === ''", 10)
        await frames_go_on(page)
        assert len(gateway.stages.audio.received) > heard and page.problems == []


@pytest.mark.long
async def test_a_microphone_of_another_rate_gets_a_graph_of_its_own_rate(
    gateway: Running, speech: Path
) -> None:
    async with opened(gateway, speech) as page:
        refuse = (
            "void (window.join = AudioContext.prototype.createMediaStreamSource,"
            " AudioContext.prototype.createMediaStreamSource = function (stream) {"
            " if (this.sampleRate !== %s) throw new DOMException('another rate', 'NotSupportedError');"
            " return window.join.call(this, stream); })"
        )
        await page.evaluate(refuse % 44100)
        await page.click("#start")
        await page.until("window.echomimic.stats?.shown > 12")
        await page.click("#start")
        await page.evaluate((refuse % 1).replace("window.join = AudioContext", "AudioContext"))
        await page.click("#start")
        await page.until("document.querySelector('#error').textContent.includes('at its sample rate')")
        assert await page.evaluate("window.echomimic.state") == "idle" and page.problems == []


@pytest.mark.long
async def test_a_browser_that_asks_for_long_is_named(gateway: Running) -> None:
    async with opened(gateway) as page:
        await page.evaluate("void (navigator.mediaDevices.getUserMedia = () => new Promise(() => {}))")
        await page.click("#start")
        await page.until(f"{TROUBLE}.startsWith('The browser asks for the microphone')")
        await page.click("#start")
        await page.until(f"window.echomimic.state === 'idle' && {TROUBLE} === ''")


@pytest.mark.long
async def test_a_page_that_slept_goes_on(gateway: Running, speech: Path) -> None:
    async with opened(gateway, speech) as page:
        await page.click("#start")
        await page.until("window.echomimic.stats?.shown > 12")
        # As when the lid is closed: every process of the browser stands still.
        browser = [child for child in psutil.Process().children(recursive=True) if "chrom" in child.name()]
        for process in browser:
            process.suspend()
        await asyncio.sleep(8)
        for process in browser:
            process.resume()
        await page.until("window.echomimic.state === 'live'")
        await frames_go_on(page)
        await page.until(f"{TROUBLE} === '' && Math.abs(window.echomimic.stats.offsetMs) < 60")
        assert page.problems == []


def memory_of_renderers() -> int:
    """Bytes that the renderers of this test's browser hold."""
    return sum(
        child.memory_info().rss
        for child in psutil.Process().children(recursive=True)
        if "--type=renderer" in " ".join(child.cmdline())
    )


@pytest.mark.long
async def test_an_hour_of_file_is_decoded_while_it_is_spoken(gateway: Running, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / "hour.flac"
    rate = 44100
    minute = (0.2 * np.sin(np.arange(60 * rate) / 30)).astype(np.float32)[:, None].repeat(2, 1)
    with soundfile.SoundFile(path, "w", rate, 2) as file:
        for _ in range(60):
            file.write(minute)
    async with Chromium() as browser:
        page = await browser.open(gateway.url("/"))
        await page.until("window.echomimic?.state === 'idle'")
        await page.evaluate("document.querySelector('[name=source][value=file]').click()")
        await page.choose_file("#file", path)
        before = memory_of_renderers()
        await page.click("#start")
        await page.until("window.echomimic.stats?.shown > 5", 6)
        await page.until("window.echomimic.stats.shown > 24 * 8", 20)
        grown = (memory_of_renderers() - before) / 2**20
        # Decoded whole it would hold 1,211 MiB.
        assert grown < 250, grown
        progress = await page.evaluate("document.querySelector('#progress').value")
        assert 0.001 < progress < 0.01 and page.problems == []
        print(f"\n{path.stat().st_size >> 20} MiB on disk, {grown:.0f} MiB more in the renderers")
