"""The page's dialogue of own avatars in headless Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from gateway.avatars.alignment import OFFICIAL, is_installed
from protocol.process.settings import ROOT
from tests.gateway.conftest import Running, running
from tests.helpers.axe import needs_axe, serious
from tests.helpers.chromium import Chromium, Page, find_chromium

pytestmark = [
    pytest.mark.process,
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)"),
]

FACE = ROOT / "demo/bundled/avatars/maya.png"
#: The dialogue's part that is shown, by the class of what it holds.
SHOWN = "[...document.querySelectorAll('dialog.own > div')].slice(1).findIndex((part) => !part.hidden)"
CHOOSE, CAMERA, CROP, TRYING, PREVIEW = range(5)
BUTTONS = "[...document.querySelectorAll('dialog.own button')]"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("page") / "own"
    with running(portraits=ROOT / "demo/bundled/avatars", own_avatar_dir=folder, max_sessions=2) as run:
        yield run


async def press(page: Page, text: str) -> None:
    """Press the button of the dialogue with this text or name that is shown."""
    found = f"{BUTTONS}.find((b) => b.checkVisibility() && (b.ariaLabel ?? b.textContent) === {text!r})"
    await page.until(f"Boolean({found})")
    await page.evaluate(f"{found}.click()")


async def at(page: Page, step: int) -> None:
    await page.until(f"{SHOWN} === {step}", 30)


async def test_bring_crop_try_keep_use_and_remove(gateway: Running, tmp_path: Path) -> None:
    async with Chromium() as browser:
        page = await browser.open(gateway.url("/"))
        await page.until("window.echomimic?.state === 'idle'")
        await page.click("#own-open")
        await at(page, CHOOSE)
        await page.choose_file("#own-file", FACE)
        await at(page, CROP)
        assert await page.evaluate("document.activeElement.className") == "own-crop"
        await page.press("ArrowRight", 39)
        await page.press("+", 187)
        assert await page.evaluate("document.querySelector('#own-name').value") == "maya"
        await press(page, "Try it")
        await at(page, PREVIEW)
        await page.until("document.querySelector('.own-preview').naturalWidth > 100")
        assert "animates it" in await page.evaluate("document.querySelector('.own-message').textContent")
        await press(page, "Keep")
        card = "document.querySelector('#avatars input[value^=own-]')"
        await page.until(f"{card}?.checked === true")
        assert await page.evaluate("document.querySelector('dialog.own').open") is False
        assert await page.evaluate(f"{card}.parentElement.textContent") == "Maya"
        await page.click("#start")
        await page.until("window.echomimic.stats?.shown > 20")
        await page.click("#start")

        await page.click("#own-open")
        await press(page, "Remove Maya")
        await page.until(f"{card} === null")
        await page.evaluate("document.querySelector('dialog.own').close()")
        assert await page.evaluate("document.activeElement.id") == "own-open"
        assert not page.problems


@pytest.mark.skipif(not is_installed(), reason="needs OpenCV (the extra align)")
async def test_the_crop_begins_at_the_face_and_a_hand_wins(gateway: Running, tmp_path: Path) -> None:
    """The stand-ins are no bundled model, so the face comes to where the official weights have it."""
    wide, plain = tmp_path / "wide.png", tmp_path / "plain.png"
    whole = Image.new("RGB", (1200, 800), (196, 190, 184))
    whole.paste(Image.open(FACE).convert("RGB").resize((360, 360)), (700, 300))
    whole.save(wide)
    Image.new("RGB", (300, 300), "white").save(plain)
    message = "document.querySelector('.own-message').textContent"
    async with Chromium() as browser:
        page = await browser.open(gateway.url("/"))
        await page.until("window.echomimic?.state === 'idle'")
        # The part is read where it is sent, and the answer about the face can be held up.
        await page.evaluate(
            "window.sent = []; window.answers = 0; const real = window.fetch;"
            " window.fetch = async (to, how) => {"
            " const crop = new URL(to, document.baseURI).searchParams.get('crop');"
            " if (crop) window.sent.push(crop.split(',').map(Number));"
            " const answer = await real(to, how);"
            " while (window.held) await new Promise((on) => setTimeout(on, 20));"
            " window.answers += 1; return answer; }; 0"
        )
        await page.click("#own-open")
        await page.choose_file("#own-file", wide)
        await at(page, CROP)
        assert await page.evaluate("document.querySelector('.own-message').getAttribute('role')") == "status"
        await page.until(f"{message}.startsWith('Face found')")
        await press(page, "Try it")
        await at(page, PREVIEW)
        left, top, width, height = (await page.evaluate("window.sent"))[-1]
        assert (700 + 180 - left * 1200) / (width * 1200) == pytest.approx(OFFICIAL.x, abs=0.02)
        assert (300 + 0.4 * 360 - top * 800) / (height * 800) == pytest.approx(OFFICIAL.y, abs=0.02)
        # Moved by hand while the server looks, it stays where it was moved.
        await press(page, "Back")
        await press(page, "Back")
        await page.evaluate("window.held = true")
        await page.choose_file("#own-file", wide)
        await page.until(f"{message}.startsWith('Looking')")
        await page.press("ArrowRight", 39)
        assert await page.evaluate(message) == ""
        await page.evaluate("window.held = false; window.answers = 0")
        await page.until("window.answers > 0")
        await page.evaluate("new Promise((done) => setTimeout(done, 100))")
        assert await page.evaluate(message) == ""
        await press(page, "Back")
        await page.choose_file("#own-file", plain)
        await page.until(f"{message}.startsWith('No face was found')")
        told = await page.evaluate(
            "import(new URL('avatar-face.js', document.baseURI)).then(({ FaceFinder }) =>"
            " new Promise((told) => new FaceFinder({}, {}, told, told).look(null, false)))"
        )
        assert told.startswith("This server does not look for faces")
        assert not page.problems


@needs_axe
@pytest.mark.parametrize("dark", [False, True])
async def test_a_screen_reader_finds_nothing_serious_in_the_dialogue(
    gateway: Running, tmp_path: Path, dark: bool
) -> None:
    small = tmp_path / "small.png"
    Image.new("RGB", (12, 12), "white").save(small)
    async with Chromium() as browser:
        page = await browser.open(gateway.url("/?lang=de"))
        await page.size(1280, 800, dark=dark)
        await page.until("window.echomimic?.state === 'idle'")
        await page.click("#own-open")
        await at(page, CHOOSE)
        assert await serious(page) == []
        # The server's refusal is German too.
        await page.choose_file("#own-file", small)
        await at(page, CROP)
        await press(page, "Ausprobieren")
        message = "document.querySelector('.own-message').textContent"
        assert "Bildpunkte" in await page.until(f"{message}.includes('12×12') && {message}", 20)
        assert await serious(page) == []
        await press(page, "Zurück")
        await page.choose_file("#own-file", FACE)
        await at(page, CROP)
        assert await serious(page) == []
        await press(page, "Ausprobieren")
        await at(page, PREVIEW)
        await page.until("document.querySelector('.own-preview').naturalWidth > 100")
        assert await serious(page) == []
        await page.evaluate("document.querySelector('dialog.own').close()")
        await page.size(390, 844, phone=True, dark=dark)
        await page.click("#own-open")
        await at(page, CHOOSE)
        assert await serious(page) == []


@pytest.mark.long
async def test_what_the_model_does_not_carry_is_warned_of(gateway: Running) -> None:
    """The warning stands on the page before the avatar is kept, and a draft that is left goes."""
    gateway.does.smears = True
    assert gateway.settings.own_avatar_dir is not None
    folder = gateway.settings.own_avatar_dir
    before = set(folder.glob("own-*"))  # a draft of another test, whose browser has ended
    async with Chromium() as browser:
        page = await browser.open(gateway.url("/"))
        await page.until("window.echomimic?.state === 'idle'")
        await page.click("#own-open")
        await page.choose_file("#own-file", FACE)
        await at(page, CROP)
        await press(page, "Try it")
        await at(page, PREVIEW)
        assert "does not keep much" in await page.evaluate(
            "document.querySelector('.own-message').textContent"
        )
        assert await page.evaluate(f"{BUTTONS}.some((b) => b.textContent === 'Keep it anyway')")
        await page.evaluate("document.querySelector('dialog.own').close()")
        for _ in range(100):
            if set(folder.glob("own-*")) <= before:
                break
            await page.evaluate("new Promise((done) => setTimeout(done, 50))")
        assert set(folder.glob("own-*")) <= before


@pytest.mark.long
async def test_the_camera_and_files_that_are_no_pictures(gateway: Running, tmp_path: Path) -> None:
    async with Chromium() as browser:
        page = await browser.open(gateway.url("/"))
        await page.until("window.echomimic?.state === 'idle'")
        await page.click("#own-open")
        wrong = tmp_path / "x.png"
        wrong.write_bytes(b"no picture")
        await page.choose_file("#own-file", wrong)
        await page.until("document.querySelector('.own-message').textContent.includes('PNG or JPEG')")
        await press(page, "Use the camera")
        await page.until("document.querySelector('dialog.own video').videoWidth > 0")
        await press(page, "Take the picture")
        await at(page, CROP)
        assert await page.evaluate("document.querySelector('dialog.own video').srcObject") is None
        # A part chosen by dragging and with the wheel.
        await page.evaluate(
            "document.querySelector('.own-crop').dispatchEvent(new WheelEvent('wheel', {deltaY: -200,"
            " clientX: 300, clientY: 300, cancelable: true}))"
        )
        await press(page, "Back")
        await at(page, CHOOSE)
