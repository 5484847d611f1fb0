"""The page at the door: tokens, a path prefix, a plain sentence for each refusal, in headless Chromium."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from gateway.door.signed_tokens import BrowserClaims, new_jti, sign
from gateway.door.token_file import (
    TokenBook,
    add_token,
    entry_for,
    new_book,
    new_token,
    read_book,
    revoke_token,
    write_book,
    writing,
)
from protocol.process.settings import ROOT
from scripts.talk.sound import synthetic_voice, write_wav
from tests.gateway.conftest import Running, running
from tests.gateway.test_embed import with_component
from tests.helpers.chromium import Chromium, Page, find_chromium
from tests.helpers.other_site import OtherSite, other_site

pytestmark = [
    pytest.mark.process,
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (apt install chromium)"),
]

FORM = "document.querySelector('#gate')"
REASON = "document.querySelector('#refusal').textContent"


class Tokens:
    """A token file, changed while a gateway reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.put(new_book())

    def put(self, book: TokenBook) -> None:
        with writing(self.path):
            write_book(self.path, book)

    def add(self, name: str, **limits: Any) -> str:
        token = new_token()
        entry = entry_for(token, name, ("session",), int(time.time()), **limits)
        self.put(add_token(read_book(self.path), entry))
        return token

    def browser_token(self, name: str, seconds: int) -> str:
        """A signed one that lives so many seconds from now on."""
        book = read_book(self.path)
        entry, now = book.by_name(name), int(time.time())
        assert entry is not None
        return sign(book.key, BrowserClaims(entry.id, new_jti(), now - 60, now + seconds, 1, None, None))

    def revoke(self, name: str) -> None:
        self.put(revoke_token(read_book(self.path), name, int(time.time())))


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Tokens:
    return Tokens(tmp_path_factory.mktemp("tokens") / "tokens.json")


@pytest.fixture(scope="module")
def site() -> Iterator[OtherSite]:
    with other_site() as served:
        yield served


@pytest.fixture(scope="module")
def gateway(tokens: Tokens, site: OtherSite) -> Iterator[Running]:
    """One that asks for tokens, below a prefix, and may be held by the site's pages."""
    with running(
        portraits=ROOT / "demo/bundled/avatars",
        token_file=tokens.path,
        root_path="/face",
        embed_origins=site.origin,
        max_sessions=4,
    ) as run:
        yield run


@pytest.fixture(scope="module")
def microphone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "speech.wav"
    write_wav(path, synthetic_voice(3.0))
    return path


async def paste(page: Page, token: str) -> None:
    await page.evaluate(f"document.querySelector('#token-field').value = {token!r}")
    await page.click("#open")


async def test_the_page_asks_for_a_token_keeps_it_for_the_tab_and_hands_it_on(
    gateway: Running, tokens: Tokens, microphone: Path
) -> None:
    token = tokens.add("ward")
    async with Chromium(microphone=microphone) as browser:
        page = await browser.open(gateway.url("/face"))
        await page.until(f"!{FORM}.hidden && document.querySelector('#panel').hidden")
        assert await page.evaluate("location.pathname") == "/face/"
        assert await page.evaluate(REASON) == (
            "This server asks for a token. Paste yours, or open the link that came with it."
        )
        await paste(page, "eml_" + 43 * "x")
        await page.until(f"{REASON}.startsWith('The server does not know this token')")
        await paste(page, "not a token")
        await page.until(f"{REASON}.startsWith('The server does not know this token')")
        await paste(page, f"  {token} ")
        await page.until(f"window.echomimic.state === 'idle' && {FORM}.hidden")
        shown = "[...document.querySelectorAll('.panel img')].every((img) => img.naturalWidth > 0)"
        await page.until(f"document.querySelectorAll('#avatars img').length === 6 && {shown}")
        await page.until("document.querySelector('#portrait').naturalWidth > 100")
        await page.click("#start")
        await page.until("window.echomimic.stats?.shown > 12")
        await page.click("#start")
        # The tab keeps it over a reload. Another tab does not have it.
        await page.go(gateway.url("/face/"))
        await page.until("window.echomimic?.state === 'idle'")
        other = await browser.open(gateway.url("/face/"))
        await other.until(f"!{FORM}.hidden")

        # A link with a token: gone from the address bar, whatever else stands there stays.
        for address in (f"/face/?a=1&token={token}&b=2#top", f"/face/?a=1&b=2#token={token}&top"):
            linked = await browser.open(gateway.url(address))
            await linked.until("window.echomimic?.state === 'idle'")
            at = await linked.evaluate("[location.search, location.hash, history.length, document.referrer]")
            assert at[:2] == ["?a=1&b=2", "#top"] and token not in str(at)

        # Revoked in the middle of a session: the page says so and asks for another.
        await page.command("Page.bringToFront")
        await page.click("#start")
        await page.until("window.echomimic.stats?.shown > 12")
        tokens.revoke("ward")
        await page.until(f"!{FORM}.hidden && {REASON}.startsWith('This token was withdrawn')")
        assert await page.evaluate("document.querySelector('#state').textContent") == "Token needed"
        second = tokens.add("ward-2")
        await paste(page, second)
        await page.until("window.echomimic.state === 'idle'")


async def test_an_embedded_face_goes_on_with_a_new_token(
    gateway: Running, tokens: Tokens, site: OtherSite, microphone: Path
) -> None:
    program = tokens.add("program")
    server = gateway.url("/face/echomimic-face.js")
    body = with_component(gateway, "avatar='leo' muted").replace(gateway.url("/echomimic-face.js"), server)
    async with Chromium(microphone=microphone) as browser:
        page = await browser.open(site.page("tokens", body))
        await page.until("last.error?.code === 'token_missing'")
        assert await page.evaluate("face.server") == gateway.url("/face/")
        old = tokens.browser_token("program", -1)
        await page.evaluate(f"face.setAttribute('token', {old!r})")
        await page.until("last.error?.code === 'token_expired'")
        frame = await browser.frame("/face/embed")
        assert await frame.evaluate("document.querySelector('#error').textContent") == (
            "This token has expired. Ask for a new one."
        )
        # Speech that waits is spoken as soon as a good token comes.
        await page.evaluate("(face.speak(new Float32Array(16000).fill(0.1)), face.flush())")
        await asyncio.sleep(0.5)
        good = tokens.browser_token("program", 60)
        await page.evaluate(f"face.setAttribute('token', {good!r})")
        await page.until("got.ready && got.frame > 6 && document.querySelector('echomimic-face')")
        assert await frame.evaluate("document.querySelector('#error').hidden")
        assert good not in await frame.evaluate("location.href")
        # One that expires under a face at rest: the holding page hears of it, and visitors see nothing.
        short = tokens.browser_token("program", 1)
        await page.evaluate("(face.stop(), last.error = null)")
        await asyncio.sleep(1.5)
        await page.evaluate(f"face.setAttribute('token', {short!r})")
        await page.until("last.error?.code === 'token_expired'")
        assert await frame.evaluate("document.querySelector('#error').hidden")
        # A browser source has its address alone.
        source = await browser.open(gateway.url(f"/face/embed?mic&avatar=omar&token={program}"))
        await source.until("window.echomimic.stats?.shown > 6")
        assert await source.evaluate("location.search") == "?mic&avatar=omar"
        assert source.problems == []


@asynccontextmanager
async def renaming_proxy(run: Running) -> AsyncIterator[int]:
    """A proxy that puts the gateway's own name into the Host header, as many do by default. Its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", run.settings.port)
        head = await reader.readuntil(b"\r\n\r\n")
        host = f"\r\nHost: 127.0.0.1:{run.settings.port}\r\n".encode()
        inner_writer.write(re.sub(rb"\r\nHost: [^\r]*\r\n", host, head))
        while data := await inner_reader.read(1 << 16):
            writer.write(data)
        for each in (writer, inner_writer):
            each.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield int(server.sockets[0].getsockname()[1])


async def test_each_refusal_is_a_sentence(microphone: Path) -> None:
    with running(max_sessions=1) as run:
        async with renaming_proxy(run) as port, Chromium(microphone=microphone) as browser:
            page = await browser.open(f"http://localhost:{port}/")
            await page.until(f"{REASON}.startsWith('Pages of http://localhost:{port} may not connect')")
            assert "--allowed-origins" in await page.evaluate(REASON)
            await page.size(390, 844, phone=True)
            bottom = "document.querySelector('#refusal').getBoundingClientRect().bottom"
            assert await page.evaluate(f"document.querySelector('#token').hidden && {bottom} < 844")
            assert await page.evaluate("document.querySelector('#state').textContent") == "Not let in"

            # Refused while a session begins: the page asked for the reason after it was let in before.
            page = await browser.open(run.url("/"))
            await page.until("window.echomimic?.state === 'idle'")
            told = "{ open: false, code: 'host', message: 'This server does not answer to this name.' }"
            await page.evaluate(
                "void (window.WebSocket = class { constructor() {"
                " setTimeout(() => this.onclose({ reason: '' })); } close() {} send() {} })"
            )
            await page.evaluate(f"void (window.fetch = async () => new Response(JSON.stringify({told})))")
            await page.click("#start")
            await page.until(f"{REASON} === 'This server does not answer to this name.'")
            assert await page.evaluate("document.querySelector('#state').textContent") != "Reconnecting…"


async def test_the_page_lives_without_the_browser_s_sound(microphone: Path) -> None:
    """As in a browser without a sound device: its sound never starts, and never says so."""
    with running(max_sessions=1) as run:
        async with Chromium(microphone=microphone) as browser:
            page = await browser.open(run.url("/"))
            await page.until("window.echomimic?.state === 'idle'")
            await page.evaluate(
                "void (AudioContext.prototype.resume = function () {"
                " this.suspend(); return new Promise(() => {}); })"
            )
            await page.click("#start")
            await page.until("document.querySelector('#error').textContent.includes('sound does not start')")
            assert await page.evaluate("window.echomimic.state") == "idle"
