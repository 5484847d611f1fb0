"""The page's text box: a text begins a session without a microphone, and the face speaks it."""

from __future__ import annotations

import pytest

from tests.gateway.conftest import running
from tests.helpers.chromium import Chromium, find_chromium
from tests.helpers.voice import needs_espeak, voice_worker

pytestmark = [
    pytest.mark.process,
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)"),
]
TYPE = "document.querySelector('#say-text').value = '{}'"
SEND = "document.querySelector('#say').requestSubmit()"
SPEAKING = "document.querySelector('#say').dataset.speaking"


@needs_espeak
async def test_a_text_is_spoken_and_shown_in_step() -> None:
    with running(max_sessions=1, voice_engine="espeak-ng") as run, voice_worker(run.settings):
        async with Chromium() as browser:
            page = await browser.open(run.url("/"))
            await page.until("window.echomimic?.state === 'idle'")
            assert not await page.evaluate("document.querySelector('#say').hidden")
            await page.evaluate(TYPE.format("Hello there. This is a typed text."))
            await page.evaluate(SEND)
            await page.until(f"{SPEAKING} === 'true' && window.echomimic.stats?.shown > 24")
            await page.until(f"{SPEAKING} === 'false'")
            assert await page.evaluate("document.querySelector('#say-note').hidden")
            stats = await page.evaluate("({offset: window.echomimic.stats.offsetMs})")
            assert abs(stats["offset"]) < 60
            # another one in the same session
            shown = await page.evaluate("window.echomimic.stats.shown")
            await page.evaluate(TYPE.format("Once more."))
            await page.evaluate(SEND)
            await page.until(f"window.echomimic.stats.shown > {shown} + 12")
            await page.evaluate("document.querySelector('#start').click()")
            await page.until("window.echomimic.state === 'idle'")


async def test_without_an_engine_there_is_no_text_box() -> None:
    with running(max_sessions=1, voice_engine="none") as run:
        async with Chromium() as browser:
            page = await browser.open(run.url("/"))
            await page.until("window.echomimic?.state === 'idle'")
            assert await page.evaluate("document.querySelector('#say').hidden")
