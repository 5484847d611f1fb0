"""Headless Firefox over WebDriver BiDi: start, open a page, evaluate, take pictures, close.

    async with Firefox() as browser:
        page = await browser.open("http://127.0.0.1:8080/")
        await page.click("#start")
        await page.until("window.echomimic.stats?.shown > 100")

No other package is needed: the protocol is JSON over a websocket. Its microphone is a tone.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.helpers.chromium import BrowserFault, value_when_true

NAMES = ("firefox-esr", "firefox")
PREFERENCES = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    "media.autoplay.blocking_policy": 0,
    "app.update.enabled": False,
    "browser.shell.checkDefaultBrowser": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "remote.active-protocols": 1,
    "intl.accept_languages": "en-US",
    # Without a GPU its own process only takes time.
    "layers.gpu-process.enabled": False,
}
STARTED_WITHIN = 60.0


def find_firefox() -> str | None:
    """The browser's path, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class FirefoxPage:
    """One tab.

    Attributes:
        problems: the errors that the page logs, and the exceptions that nobody caught.
    """

    def __init__(self, browser: Firefox, context: str) -> None:
        self.problems: list[str] = []
        self._browser = browser
        self.context = context

    async def go(self, url: str) -> None:
        await self._browser.command(
            "browsingContext.navigate", context=self.context, url=url, wait="complete"
        )

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression (awaited if a promise), as JSON carries it."""
        told = await self._browser.command(
            "script.evaluate",
            expression=f"(async () => JSON.stringify((await ({expression})) ?? null))()",
            target={"context": self.context},
            awaitPromise=True,
            userActivation=True,
        )
        if told["type"] == "exception":
            raise BrowserFault(told["exceptionDetails"]["text"])
        return json.loads(told["result"]["value"])

    async def until(self, expression: str, seconds: float = 20.0) -> Any:
        """The expression's value once it is true. Raises BrowserFault when it does not become so."""
        return await value_when_true(self, expression, seconds, 0.1)

    async def click(self, selector: str) -> None:
        """A real mouse click in the middle of an element."""
        x, y = await self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({ block: 'nearest' }); const b = e.getBoundingClientRect();"
            " return [Math.round(b.x + b.width / 2), Math.round(b.y + b.height / 2)]; })()"
        )
        moves = [
            {"type": "pointerMove", "x": x, "y": y},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        mouse = {"type": "pointer", "id": "mouse", "actions": moves}
        await self._browser.command("input.performActions", context=self.context, actions=[mouse])

    async def choose_file(self, selector: str, path: Path) -> None:
        """Put a file into a file input."""
        found = await self._browser.command(
            "browsingContext.locateNodes",
            context=self.context,
            locator={"type": "css", "value": selector},
        )
        element = {"sharedId": found["nodes"][0]["sharedId"]}
        await self._browser.command(
            "input.setFiles", context=self.context, element=element, files=[str(path)]
        )

    async def size(self, width: int, height: int) -> None:
        viewport = {"width": width, "height": height}
        await self._browser.command("browsingContext.setViewport", context=self.context, viewport=viewport)

    async def screenshot(self, path: Path) -> None:
        picture = await self._browser.command("browsingContext.captureScreenshot", context=self.context)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(picture["data"]))


class Firefox:
    """A browser process with a profile of its own, both gone at the end."""

    def __init__(self, *, dark: bool = False) -> None:
        self._preferences = {
            **PREFERENCES,
            "layout.css.prefers-color-scheme.content-override": 0 if dark else 1,
        }
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._pages: dict[str, FirefoxPage] = {}

    async def __aenter__(self) -> Firefox:
        path = find_firefox()
        if path is None:
            raise BrowserFault("no Firefox on this machine")
        self._profile = Path(tempfile.mkdtemp(prefix="firefox-"))
        lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in self._preferences.items()]
        (self._profile / "user.js").write_text("\n".join(lines))
        command = ["--headless", "--remote-debugging-port=0", "--profile", str(self._profile), "--no-remote"]
        self._process = await asyncio.create_subprocess_exec(
            path, *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        try:
            self._ws = await self._connect()
            self._reader = asyncio.create_task(self._read())
            await self.command("session.new", capabilities={})
            await self.command("session.subscribe", events=["log.entryAdded"])
        except BaseException:
            await self._end()
            raise
        return self

    async def _connect(self) -> ClientConnection:
        assert self._process.stderr is not None
        end = asyncio.get_running_loop().time() + STARTED_WITHIN
        while asyncio.get_running_loop().time() < end:
            line = (await asyncio.wait_for(self._process.stderr.readline(), STARTED_WITHIN)).decode()
            if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", line):
                self._drain = asyncio.create_task(self._process.stderr.read())
                return await connect(f"{found.group(1)}/session", max_size=64 << 20)
            if not line:
                break
        raise BrowserFault("Firefox did not open its port")

    async def _read(self) -> None:
        async for text in self._ws:
            message = json.loads(text)
            if "id" in message:
                answer = self._answers.pop(message["id"], None)
                if answer is not None and not answer.done():
                    answer.set_result(message)
            elif message["method"] == "log.entryAdded" and message["params"]["level"] == "error":
                page = self._pages.get(message["params"]["source"].get("context", ""))
                if page is not None:
                    page.problems.append(str(message["params"].get("text")))

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """One protocol command and its result."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._ws.send(json.dumps({"id": number, "method": method, "params": params}))
        answer = await asyncio.wait_for(self._answers[number], 60)
        if answer.get("type") == "error":
            raise BrowserFault(f"{method}: {answer['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def open(self, url: str) -> FirefoxPage:
        """A new tab with this page, loaded."""
        created = await self.command("browsingContext.create", type="tab")
        page = FirefoxPage(self, created["context"])
        self._pages[page.context] = page
        await page.go(url)
        return page

    async def __aexit__(self, *_: object) -> None:
        with contextlib.suppress(Exception):
            await self.command("browser.close")
        self._reader.cancel()
        with contextlib.suppress(Exception):
            await self._ws.close()
        await self._end()

    async def _end(self) -> None:
        try:
            await asyncio.wait_for(self._process.wait(), 5)
        except asyncio.TimeoutError:
            self._process.kill()
            await self._process.wait()
        if hasattr(self, "_drain"):
            await self._drain
        shutil.rmtree(self._profile, ignore_errors=True)
