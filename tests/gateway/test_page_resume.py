"""The page comes back to its session: broken networks, a gateway that is killed, a reload, a second tab."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocol.process.settings import ROOT
from scripts.torture.proxy import PoorNetwork
from tests.gateway.conftest import Running, running
from tests.gateway.test_page import STATS, speech
from tests.helpers.chromium import Chromium, Page, find_chromium

__all__ = ["speech"]  # the fixture

pytestmark = [
    pytest.mark.process,
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)"),
]

#: Milliseconds from the last clip's last sample spoken to its first picture.
LATENCY = "window.echomimic.stats.latencies.at(-1)"


@pytest.fixture(scope="module")
def gateway() -> Iterator[Running]:
    with running(portraits=ROOT / "demo/bundled/avatars", max_sessions=3) as run:
        yield run


async def speaking(browser: Chromium, url: str) -> Page:
    page = await browser.open(url)
    await page.until("window.echomimic?.state === 'idle'")
    await page.click("#start")
    await page.until("window.echomimic.stats?.shown > 40")
    return page


async def stats_of(page: Page) -> dict[str, Any]:
    found: dict[str, Any] = await page.evaluate(STATS)
    return found


def sessions_begun(run: Running) -> int:
    return run.log().count(" begins: ")


@pytest.mark.long
async def test_networks_that_break_and_stand_still_cost_little(gateway: Running, speech: Path) -> None:
    begun = sessions_begun(gateway)
    async with PoorNetwork(gateway.settings.port, delay=0.1, jitter=0.05) as network:
        async with Chromium(microphone=speech) as browser:
            page = await speaking(browser, network.url)
            for number in (1, 2):
                shown = (await stats_of(page))["shown"]
                network.reset()
                await page.until(f"window.echomimic.stats.resumed === {number}", 4)
                await page.until(f"window.echomimic.stats.shown > {shown + 30}", 6)
            found = await stats_of(page)
            print(found)
            assert found["leftOut"] == 0 and found["unheard"] < 1.0, found
            assert found["server"]["seconds_left_out"] < 1.0, found
            assert abs(found["offsetMs"]) < 80, found

            normal = await page.evaluate(LATENCY)
            await network.stand_still(3.0)
            await asyncio.sleep(3.5)
            after = await page.evaluate(LATENCY)
            found = await stats_of(page)
            print(normal, after, found)
            assert after < normal + 600, (normal, after, found)
            assert abs(found["offsetMs"]) < 80, found
            assert await page.evaluate("window.echomimic.state") == "live"
            assert page.problems == [] or all("WebSocket" in text for text in page.problems)
    assert sessions_begun(gateway) == begun + 1


async def test_the_page_goes_on_at_once_when_a_killed_gateway_is_back(speech: Path) -> None:
    with running() as run:
        async with Chromium(microphone=speech) as browser:
            page = await speaking(browser, run.url("/"))
            run.kill()
            await page.until("window.echomimic.state === 'waiting'")
            await asyncio.sleep(3.0)
            run.start()
            run.wait_ready()
            shown = (await stats_of(page))["shown"]
            await page.until(f"window.echomimic.stats.shown > {shown}", 3.5)
            found = await stats_of(page)
            assert found["resumed"] == 1 and found["leftOut"] == 0, found
            assert found["server"]["seconds_left_out"] == 0, found


async def test_a_reload_goes_on_and_a_copy_of_the_tab_takes_nothing(gateway: Running, speech: Path) -> None:
    begun = sessions_begun(gateway)
    async with Chromium(microphone=speech) as browser:
        page = await speaking(browser, gateway.url("/"))
        await page.evaluate("document.querySelector('#avatars label:nth-child(2)').click()")
        await asyncio.sleep(0.5)
        chosen = await page.evaluate("document.querySelector('[name=avatar]:checked').value")
        await page.go(gateway.url("/"))
        await page.until("window.echomimic?.state === 'live' || window.echomimic?.state === 'idle'")
        await asyncio.sleep(0.5)
        if await page.evaluate("window.echomimic.state") == "idle":
            await page.click("#start")
        await page.until("window.echomimic.stats?.shown > 20")
        found = await stats_of(page)
        assert found["resumed"] == 1, found
        assert await page.evaluate("document.querySelector('[name=avatar]:checked').value") == chosen
        assert sessions_begun(gateway) == begun + 1

        # While a page runs, its place is not in the storage, so a copy of it has nothing to take.
        assert await page.evaluate("Object.keys(sessionStorage).filter((k) => k.includes('session'))") == []
        # Somebody has the place all the same: the session goes on there, and the older tab says so.
        kept = await page.evaluate(
            "(() => { dispatchEvent(new PageTransitionEvent('pagehide'));"
            " const [key] = Object.keys(sessionStorage); const kept = [key, sessionStorage.getItem(key)];"
            " sessionStorage.removeItem(key); return kept; })()"
        )
        other = await browser.open(gateway.url("/"))
        await other.evaluate(f"void sessionStorage.setItem(...{json.dumps(kept)})")
        await other.go(gateway.url("/"))
        await other.until("window.echomimic?.state === 'live' || window.echomimic?.state === 'idle'")
        await asyncio.sleep(0.5)
        if await other.evaluate("window.echomimic.state") == "idle":
            await other.click("#start")
        await other.until("window.echomimic.stats?.resumed === 1")
        await page.until("document.querySelector('#error').textContent.includes('another tab')")
        assert await page.evaluate("window.echomimic.state") == "idle"
        await asyncio.sleep(1.0)
        assert await other.evaluate("window.echomimic.state") == "live"
        assert await page.evaluate("window.echomimic.state") == "idle"
