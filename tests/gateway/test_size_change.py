"""Pictures that change their size within a session: for programs, in recordings and on the page."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from echomimic_live_client import Frame, VideoDecoder
from gateway.recording.part import stream_shape
from protocol.wire.browser import VideoMessage
from tests.gateway.clients import Client, client_v2, noise
from tests.gateway.conftest import Running, running
from tests.gateway.test_page import STATS, speech
from tests.gateway.test_recording import fetch, played, told
from tests.helpers.chromium import Chromium, find_chromium

av = pytest.importorskip("av")
pytestmark = [
    pytest.mark.process,
    pytest.mark.timing,
    pytest.mark.skipif("libx264" not in av.codecs_available, reason="this PyAV has no x264"),
]
__all__ = ["speech"]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running(max_sessions=2, idle_flush=1.0, record_dir=tmp_path_factory.mktemp("made")) as run:
        yield run


async def spoken(gateway: Running, client: Client, *, fine: bool) -> None:
    """Half a second of speech in one of the sizes."""
    gateway.stages.behaviour.fine = fine
    before = len(client.frames)
    await client.speak(noise(0.5))
    await client.until(lambda c: len(c.frames) - before >= 12)


def sides(frames: list[VideoMessage]) -> list[int]:
    """The width of each picture, by one decoder of a program that goes through all of them."""
    decoder = VideoDecoder()
    shown = [
        decoder.decode(Frame(f.data, f.epoch, f.seq, f.index, f.count, f.pts, 0.0, 0, f.codec, f.key, f.idle))
        for f in frames
    ]
    return [0 if picture is None else picture.shape[1] for picture in shown]


@pytest.mark.parametrize("codec", ["h264", "jpeg"])
async def test_the_size_changes_from_clip_to_clip(gateway: Running, codec: str) -> None:
    async with client_v2(gateway, hello={"video": [codec]}) as client:
        assert (client.text("ready")["width"], client.text("ready")["height"]) == (256, 256)
        await client.ws.send('{"type":"record","action":"start"}')
        for fine in (False, True, False):
            await spoken(gateway, client, fine=fine)
        await client.until(lambda c: c.text("status")["width"] == 256)
        await played(client)
        await client.ws.send('{"type":"record","action":"stop"}')
        await client.until(lambda c: [t["state"] for t in told(c)].count("finished") == 3)
    assert sides(client.frames) == [256] * 12 + [512] * 12 + [256] * 12
    assert [(f.epoch, f.seq, f.index) for f in client.frames] == [(0, n // 12, n % 12) for n in range(36)]
    assert {text["width"] for text in client.texts if text["type"] == "status"} <= {256, 512}
    shapes = [stream_shape(f) for f in client.frames if f.key]
    assert len(set(shapes)) == 2
    names = [text["name"] for text in told(client) if text["state"] == "finished"]
    assert [_side(gateway, name) for name in names] == [256, 512, 256]


def _side(gateway: Running, name: str) -> int:
    with av.open(io.BytesIO(fetch(gateway, f"/recordings/{name}")[1])) as file:
        (side,) = {picture.width for picture in file.decode(video=0)}
    return int(side)


@pytest.mark.long
@pytest.mark.browser
@pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)")
@pytest.mark.parametrize("codec", ["h264", "jpeg"])
async def test_the_page_shows_both_in_one_place(gateway: Running, speech: Path, codec: str) -> None:
    place = "JSON.stringify(document.querySelector('#canvas').getBoundingClientRect())"
    async with Chromium(microphone=speech) as browser:
        page = await browser.open(gateway.url(f"/?video={codec}"))
        await page.until("window.echomimic?.state === 'idle'")
        await page.click("#start")
        await page.until("window.echomimic.stats?.shown > 24")
        before, where = await page.evaluate(STATS), await page.evaluate(place)
        for fine, side in ((True, 512), (False, 256), (True, 512)):
            gateway.stages.behaviour.fine = fine
            await page.until(f"document.querySelector('#canvas').width === {side}")
            assert await page.evaluate(place) == where
            shown = await page.evaluate("window.echomimic.stats.shown")
            await page.until(f"window.echomimic.stats.shown > {shown} + 24")
        after = await page.evaluate(STATS)
        assert page.problems == [] or all("404" in problem for problem in page.problems)
    assert after["codec"] == codec and not after.get("decoderFailed")
    assert after["drops"] - before["drops"] < 10, (before, after)
