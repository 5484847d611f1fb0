"""The page for people: languages, screen readers, keyboard, guidance, curves, and Firefox."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.site import PAGE
from protocol.process.settings import ROOT
from protocol.wire.browser import BrowserError, encode_error
from protocol.wire.phrases import phrase
from tests.gateway.conftest import Running, running
from tests.gateway.test_page import opened, speech
from tests.helpers.axe import needs_axe, serious
from tests.helpers.chromium import Chromium, find_chromium
from tests.helpers.firefox import Firefox, find_firefox

__all__ = ["speech"]

ENTRY = re.compile(r'^ {2}"([\w.]+)":\s+"((?:[^"\\]|\\.)*)",$', re.MULTILINE)
needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)")


@pytest.fixture(scope="module")
def gateway() -> Iterator[Running]:
    with running(portraits=ROOT / "demo/bundled/avatars", max_sessions=3) as run:
        yield run


def catalogue(language: str) -> dict[str, str]:
    files = [PAGE / f"{kind}-{language}.js" for kind in ("texts", "told")]
    text = "\n".join(file.read_text(encoding="utf-8") for file in files)
    found = dict(ENTRY.findall(text))
    assert len(found) == len(re.findall(r'^ {2}"[\w.]+":', text, re.MULTILINE)), "an entry was not read"
    return found


def test_the_catalogues_have_the_same_texts_with_the_same_places() -> None:
    english, german = catalogue("en"), catalogue("de")
    assert list(english) == list(german)
    for key, text in english.items():
        assert sorted(re.findall(r"\{\w+\}", text)) == sorted(re.findall(r"\{\w+\}", german[key])), key
    same = {key for key, text in english.items() if text == german[key] and len(text) > 5}
    assert same == set()


@pytest.mark.parametrize("page", ["index.html", "embed.html"])
def test_every_text_of_the_html_is_in_the_catalogues(page: str) -> None:
    html = (PAGE / page).read_text(encoding="utf-8")
    keys = re.findall(r'data-(?:text|label|title|placeholder)="([^"]+)"', html)
    assert keys and set(keys) <= set(catalogue("en"))
    # The English in the HTML is shown until the scripts run.
    for key, text in re.findall(r'data-text="([^"]+)"[^>]*>([^<]+)<', html):
        assert catalogue("en")[key].startswith(text), key


@pytest.mark.process
@pytest.mark.browser
@needs_chromium
@needs_axe
async def test_a_screen_reader_finds_nothing_serious(gateway: Running, speech: Path) -> None:
    async with opened(gateway, speech) as page:
        await page.size(1280, 900)
        assert await serious(page) == []
        assert await page.evaluate("!document.querySelector('#guide').hidden")
        await page.click("#start")
        await page.until("window.echomimic.stats?.shown > 10")
        await page.click("#curves summary")
        for width, phone, dark in ((1280, False, True), (390, True, False)):
            await page.size(width, 900, phone=phone, dark=dark)
            assert await serious(page) == []
        assert page.problems == []


#: A function of the page's that says an error of the server.
TELLS = """Promise.all([import('/errors.js'), import('/client/errors.js')]).then(([page, client]) => {
  window.told = (e) => page.describe(new client.ClientError(e.code, e.message, e.phrase)).text;
})"""
#: Errors of the server, and the sentences of the German page.
GERMAN = [
    (
        BrowserError("bad_audio", phrase("audio_cut", bytes=3, kind="float32", each=4)),
        "Der Server kann den Ton dieser Seite nicht lesen."
        " (3 Byte sind keine ganze Zahl von Abtastwerten (float32).)",
    ),
    (
        BrowserError("bad_message", phrase("message_no_json")),
        "Der Server versteht diese Seite nicht. Ist sie veraltet? Laden Sie sie neu."
        " (Ein Text ist kein JSON.)",
    ),
    (
        BrowserError("bad_message", "of a later version"),
        "Der Server versteht diese Seite nicht. Ist sie veraltet? Laden Sie sie neu. (of a later version)",
    ),
]


@pytest.mark.process
@pytest.mark.browser
@needs_chromium
async def test_a_first_visit_by_keyboard_in_german(gateway: Running, speech: Path) -> None:
    async with Chromium(microphone=speech) as browser:
        page = await browser.open(gateway.url("/?lang=de"))
        await page.size(1280, 800)
        await page.until("window.echomimic?.state === 'idle'")
        assert await page.evaluate("document.documentElement.lang") == "de"
        assert await page.evaluate("document.querySelector('#start').textContent") == "Start"
        assert await page.evaluate("document.querySelector('#state').textContent") == "Bereit"
        assert await page.evaluate("!document.querySelector('#generated').hidden")
        assert await page.evaluate("document.querySelector('#generated').textContent") == (
            "Dieses Gesicht ist erzeugt"
        )
        await page.evaluate(TELLS)
        await page.until("window.told !== undefined")
        for refused, words in GERMAN:
            assert await page.evaluate(f"told({encode_error(refused)})") == words
        # Every control is reached by Tab, in the order of the page.
        reached = []
        for _ in range(14):
            await page.press("Tab", 9)
            reached.append(
                await page.evaluate("document.activeElement.id || document.activeElement.name || 'summary'")
            )
        wanted = ["language", "help", "guide-close", "summary", "avatar", "pose", "source", "microphone"]
        assert [name for name in dict.fromkeys(reached) if name in wanted] == wanted, reached
        await page.evaluate("document.querySelector('#guide-close').focus()")
        await page.press("Enter", 13)
        assert (
            await page.evaluate("document.querySelector('#guide').hidden && document.activeElement.id")
            == "help"
        )
        await page.evaluate("document.querySelector('#start').focus()")
        await page.press("Enter", 13)
        await page.until("window.echomimic.stats?.shown > 12")
        assert await page.evaluate("document.querySelector('#start').textContent") == "Stopp"
        await page.click("#curves summary")
        label = "(document.querySelector('#curves svg').getAttribute('aria-label') ?? '')"
        await page.until(f"{label}.startsWith('Bildrate: jetzt ') && {label}.endsWith(' fps')")
        await page.until("document.querySelector('#curves .line-0').getAttribute('d').includes('L')")
        keys = "document.querySelectorAll('#curves figcaption')[1].textContent"
        await page.until(
            f"['Server', 'Gehör', 'Gesichtsmodell', 'Bildausgabe'].every((k) => {keys}.includes(k))"
        )

        # Another language in the middle of a session, which goes on.
        await page.evaluate(
            "(() => { const l = document.querySelector('#language'); l.value = 'en';"
            " l.dispatchEvent(new Event('change')); })()"
        )
        assert await page.evaluate("document.querySelector('#start').textContent") == "Stop"
        assert await page.evaluate("document.querySelector('#sound-hint').textContent.startsWith('Off, for')")
        await page.press("Escape", 27)
        await page.until("window.echomimic.state === 'idle'")

        # The next visit remembers the language, and that the guidance was read.
        await page.go(gateway.url("/"))
        await page.until("window.echomimic?.state === 'idle'")
        assert await page.evaluate("document.documentElement.lang") == "en"
        assert await page.evaluate("document.querySelector('#guide').hidden")
        await page.click("#full")
        await page.until("document.fullscreenElement?.id === 'frame'")
        await page.click("#full")
        await page.until("!document.fullscreenElement")
        assert page.problems == []


@pytest.mark.long
@pytest.mark.process
@pytest.mark.browser
@pytest.mark.skipif(find_firefox() is None, reason="needs Firefox (apt install firefox-esr)")
async def test_firefox_without_a_sound_device_speaks_a_file(gateway: Running, speech: Path) -> None:
    """Its sound may start or not, as the machine has a device or none. The file is spoken in either case."""
    async with Firefox() as browser:
        page = await browser.open(gateway.url("/"))
        await page.size(1280, 800)
        await page.until("window.echomimic?.state === 'idle'")
        await page.evaluate("document.querySelector('[name=source][value=file]').click()")
        await page.choose_file("#file", speech)
        await page.click("#start")
        await page.until("window.echomimic.stats?.shown > 30")
        await page.evaluate("(window.kept = window.echomimic.stats) && 1")
        offset = await page.evaluate("window.kept.offsetMs")
        assert abs(offset) < 60, offset
        await page.until("window.echomimic.state === 'idle'")
        assert await page.evaluate("window.kept.clips") in (6, 7)
        assert await page.evaluate("document.querySelector('#error').hidden")
        assert page.problems == []
