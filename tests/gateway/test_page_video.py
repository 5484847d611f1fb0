"""H.264 on the page: WebCodecs decodes it in step with the sound, and JPEG takes over where it cannot."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from protocol.wire.generated import DIGITAL_SOURCE_TYPE
from scripts.fake_stages.face import PEOPLE
from tests.gateway.conftest import Running, running
from tests.gateway.test_page import STATS, speech
from tests.helpers.chromium import Chromium, Page, find_chromium

av = pytest.importorskip("av")
pytestmark = [
    pytest.mark.process,
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)"),
    pytest.mark.skipif("libx264" not in av.codecs_available, reason="this PyAV has no x264"),
]
__all__ = ["speech"]
SESSION = "window.echomimic.session"
#: The canvas's upper left pixel, which has the person's colour.
CORNER = "[...document.querySelector('#canvas').getContext('2d').getImageData(2, 2, 1, 1).data].slice(0, 3)"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(max_sessions=2, record_dir=tmp_path_factory.mktemp("made")) as run:
        yield run


@asynccontextmanager
async def opened(run: Running, microphone: Path, query: str) -> AsyncIterator[Page]:
    async with Chromium(microphone=microphone) as browser:
        page = await browser.open(run.url(f"/{query}"))
        await page.size(1280, 800)
        await page.until("window.echomimic?.state === 'idle'")
        yield page


async def figures(page: Page, shown: int) -> dict[str, Any]:
    await page.click("#start")
    await page.until(f"window.echomimic.stats?.shown > {shown}")
    stats: dict[str, Any] = await page.evaluate(STATS)
    return stats


def near(shown: list[int], wanted: tuple[int, int, int]) -> bool:
    return all(abs(a - b) <= 4 for a, b in zip(shown, wanted, strict=True))


async def test_h264_is_shown_in_step_and_jpeg_takes_over_when_decoding_fails(
    gateway: Running, speech: Path
) -> None:
    async with opened(gateway, speech, "?video=h264") as page:
        stats = await figures(page, 72)
        assert stats["codec"] == "h264"
        assert abs(stats["offsetMs"]) < 40 and stats["drops"] < 20, stats
        assert 0 < stats["latencyMs"] < 1500, stats
        assert near(await page.evaluate(CORNER), PEOPLE["ada"])

        # another face: a new epoch, whose first frame is a key frame
        await page.click("#avatars label:nth-child(3)")
        await page.until(f"{CORNER}[0] < 120")
        assert near(await page.evaluate(CORNER), PEOPLE["chen"])

        # a decoder that breaks: the session goes on, with JPEG, and shows the same colours
        await page.evaluate(f"{SESSION}.playout.pictures.fail(new Error('broken'))")
        await page.until("window.echomimic.stats.codec === 'jpeg'")
        shown = await page.evaluate("window.echomimic.stats.shown")
        await page.until(f"window.echomimic.stats.shown > {shown} + 24")
        assert near(await page.evaluate(CORNER), PEOPLE["chen"])
        await page.click("#start")
        assert all("404" in problem for problem in page.problems), (
            page.problems
        )  # the drawn have no portraits


async def test_on_the_same_machine_the_page_takes_jpeg_by_itself(gateway: Running, speech: Path) -> None:
    async with opened(gateway, speech, "") as page:
        assert (await figures(page, 12))["codec"] == "jpeg"
        known = "import('./client/pictures.js').then((m) => m.knownCodecs())"
        assert await page.evaluate(known) == ["h264", "vp8"]
        other = "import('./client/pictures.js').then((m) => m.wantedCodecs('face.example'))"
        assert await page.evaluate(other) == ["h264", "vp8"]


SAVED = """async (number) => {
    const bytes = new Uint8Array(await window.saved[number].arrayBuffer());
    let text = "";
    for (const byte of bytes) text += String.fromCharCode(byte);
    return btoa(text);
}"""


@pytest.mark.long
async def test_a_session_is_recorded_and_saved_on_the_page(
    gateway: Running, speech: Path, tmp_path: Path
) -> None:
    async with opened(gateway, speech, "") as page:
        await page.evaluate(
            "void (window.saved = [], window.make = URL.createObjectURL,"
            " URL.createObjectURL = (blob) => (window.saved.push(blob), window.make.call(URL, blob)))"
        )
        await figures(page, 12)
        await page.click("#record-button")
        await page.until("document.querySelector('#record-button').ariaPressed === 'true'")
        # the page asked for H.264, so that the film plays everywhere
        await page.until("window.echomimic.stats.codec === 'h264'")
        shown = await page.evaluate("window.echomimic.stats.shown")
        await page.until(f"window.echomimic.stats.shown > {shown} + 48")
        await page.screenshot(tmp_path / "recording.png")
        await page.click("#snapshot")
        await page.click("#record-button")
        await page.until("document.querySelector('#record-files button')?.textContent.startsWith('Save 0:0')")
        await page.click("#record-files button")
        await page.until("window.saved.length === 2")
        picture, film = [base64.b64decode(await page.evaluate(f"({SAVED})({n})")) for n in range(2)]
        with Image.open(io.BytesIO(picture)) as opened_picture:
            assert opened_picture.size == (256, 256)
        assert DIGITAL_SOURCE_TYPE.encode() in picture
        with av.open(io.BytesIO(film)) as file:
            assert file.streams.video[0].codec_context.name == "h264"
            assert file.streams.audio[0].codec_context.name == "aac"
            assert sum(1 for _ in file.decode(video=0)) >= 40
        # a session that ends while it is recorded: its file comes, too
        await page.click("#record-button")
        await page.until("document.querySelector('#record-button').ariaPressed === 'true'")
        await page.until("window.echomimic.stats.shown > 0")
        await asyncio.sleep(1.5)
        await page.click("#start")
        await page.until("document.querySelectorAll('#record-files button').length === 2")
