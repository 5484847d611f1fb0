"""Small pictures of large ones: made once, and beside the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from gateway import thumbnails
from gateway.thumbnails import Thumbnails
from protocol.process.settings import Settings
from tests.gateway.conftest import Running, running
from tests.gateway.test_site import ask

#: Size in pixels of the largest photo that is read, 62 megapixels.
LARGE = (7900, 7900)

#: Size of the frames.
FRAME = (256, 256)


@pytest.fixture(scope="module")
def large_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large")
    for number in range(3):
        Image.new("RGB", LARGE, (200, 40 * number, 0)).save(folder / f"p{number}.png", compress_level=1)
    return folder


@pytest.fixture
def server(large_pictures: Path) -> Iterator[Running]:
    with running(avatar_dir=large_pictures) as run:
        yield run


async def timed(call: Callable[[], Awaitable[object]]) -> float:
    began = time.monotonic()
    await call()
    return time.monotonic() - began


@pytest.mark.process
@pytest.mark.timing
async def test_others_are_answered_while_a_large_picture_is_made(server: Running) -> None:
    """Health checks go on, and three of those who ask for one card wait as long as one of them."""

    async def card(number: int) -> None:
        reply = await asyncio.to_thread(ask, server, "GET", f"/avatars/p{number}.png")
        assert reply.status == 200 and reply.text.startswith(b"\x89PNG")

    async def health() -> None:
        assert (await asyncio.to_thread(server.get, "/healthz"))[0] == 200

    usual = sorted([await timed(health) for _ in range(9)])[4]
    cards = asyncio.gather(*(timed(lambda: card(0)) for _ in range(3)))
    await asyncio.sleep(2 * usual)
    meanwhile = []
    while not cards.done():
        meanwhile.append(await timed(health))
    slowest = max(await cards)
    print(f"card {slowest:.2f} s, {len(meanwhile)} health checks, the slowest {max(meanwhile):.3f} s")
    assert len(meanwhile) > 5
    assert max(meanwhile[:-1]) < slowest / 3
    again = await timed(lambda: card(0))
    assert again < slowest / 3


@pytest.mark.process
async def test_a_stop_does_not_wait_for_the_pictures_that_are_due(server: Running) -> None:
    cards = [asyncio.to_thread(ask, server, "GET", f"/avatars/p{number}.png") for number in range(3)]
    waiting = asyncio.gather(*cards, return_exceptions=True)
    await asyncio.sleep(0.1)
    server.restart()  # it checks the exit status, and that the log has no traceback
    await waiting
    server.wait_ready()


async def test_all_who_ask_for_a_picture_wait_for_one_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    calls = []

    def make(path: Path, size: tuple[int, int]) -> bytes:
        calls.append(path)
        time.sleep(0.1)
        return b"picture"

    monkeypatch.setattr(thumbnails, "avatar_png", make)
    pictures = Thumbnails(replace(Settings(), avatar_dir=tmp_path))
    leaves, *stay = [asyncio.create_task(pictures.avatar("a", FRAME)) for _ in range(5)]
    await asyncio.sleep(0)
    leaves.cancel()
    assert await asyncio.gather(*stay) == [b"picture"] * 4
    assert await pictures.avatar("a", FRAME) == b"picture"
    assert len(calls) == 1
    pictures.close()


async def test_after_the_end_nothing_is_made(tmp_path: Path) -> None:
    Image.new("RGB", (40, 20)).save(tmp_path / "a.png")
    pictures = Thumbnails(replace(Settings(), avatar_dir=tmp_path))
    pictures.close()
    assert await pictures.avatar("a", FRAME) is None
