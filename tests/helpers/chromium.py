"""Headless Chromium over its DevTools protocol: start, open a page, evaluate, take pictures, close.

    async with Chromium(microphone=wav) as browser:
        page = await browser.open("http://127.0.0.1:8080/")
        await page.click("#start")
        await page.until("window.echomimic.stats?.shown > 100")
        await page.screenshot(Path("live.png"))

No other package is needed: the protocol is JSON over a websocket. `microphone` is a WAV file that the browser
plays as its microphone, over and over unless its name ends in `%noloop`.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from websockets.asyncio.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--mute-audio",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--remote-debugging-port=0",
)


def find_chromium() -> str | None:
    """The browser's path, or None where there is none."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class BrowserFault(RuntimeError):
    """The browser could not carry out a command, or the page threw."""


class ScriptedPage(Protocol):
    """A page of either browser."""

    problems: list[str]

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression."""


async def value_when_true(page: ScriptedPage, expression: str, seconds: float, pause: float) -> Any:
    """The expression's value once it is true, looked at with this pause in seconds between the looks.

    Raises:
        BrowserFault: it does not become so.
    """
    end = asyncio.get_running_loop().time() + seconds
    while not (value := await page.evaluate(expression)):
        if asyncio.get_running_loop().time() > end:
            raise BrowserFault(f"{expression} is {value!r} after {seconds:g} s; {page.problems}")
        await asyncio.sleep(pause)
    return value


class Page:
    """One tab, or a frame of another site in one.

    Attributes:
        problems: the errors that the page logs, and the exceptions that nobody caught.
        gesture: whether `evaluate` counts as a person's click, which lets sound out.
        listeners: by the name of an event of the protocol: is called with its fields.
    """

    def __init__(self, ws: ClientConnection) -> None:
        self.problems: list[str] = []
        self.gesture = True
        self.listeners: dict[str, Callable[[dict[str, Any]], None]] = {}
        self._ws = ws
        self._numbers = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for text in self._ws:
            message = json.loads(text)
            if "id" in message:
                answer = self._answers.pop(message["id"], None)
                if answer is not None and not answer.done():
                    answer.set_result(message)
            else:
                self._event(message["method"], message["params"])

    def _event(self, method: str, params: dict[str, Any]) -> None:
        if method in self.listeners:
            self.listeners[method](params)
        elif method == "Page.loadEventFired":
            self._loaded.set()
        elif method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            entry = params["entry"]
            self.problems.append(f"{entry['text']} ({entry.get('url', '')})")
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.problems.append(" ".join(str(arg.get("value")) for arg in params["args"]))

    async def command(self, method: str, **params: Any) -> dict[str, Any]:
        """One protocol command and its result."""
        number = next(self._numbers)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._ws.send(json.dumps({"id": number, "method": method, "params": params}))
        answer = await asyncio.wait_for(self._answers[number], 20)
        if "error" in answer:
            raise BrowserFault(f"{method}: {answer['error']['message']}")
        result: dict[str, Any] = answer["result"]
        return result

    async def go(self, url: str) -> None:
        self._loaded.clear()
        await self.command("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), 20)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression (awaited if a promise), as JSON carries it."""
        result = await self.command(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
            userGesture=self.gesture,
        )
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise BrowserFault(details.get("exception", {}).get("description") or details["text"])
        return result["result"].get("value")

    async def until(self, expression: str, seconds: float = 15.0) -> Any:
        """The expression's value once it is true. Raises BrowserFault when it does not become so."""
        return await value_when_true(self, expression, seconds, 0.05)

    async def click(self, selector: str) -> None:
        """A real mouse click in the middle of an element."""
        at = await self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoViewIfNeeded();"
            " const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.command(
                "Input.dispatchMouseEvent", type=kind, x=at[0], y=at[1], button="left", clickCount=1
            )

    async def press(self, key: str, code: int) -> None:
        """One key, by its name and Windows virtual key code ("Tab", 9; "Enter", 13; " ", 32)."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        for kind in ("keyDown", "keyUp"):
            await self.command(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code="Space" if key == " " else key,
                windowsVirtualKeyCode=code,
                **({"text": text} if kind == "keyDown" and text else {}),
            )

    async def choose_file(self, selector: str, path: Path) -> None:
        """Put a file into a file input."""
        root = await self.command("DOM.getDocument")
        node = await self.command("DOM.querySelector", nodeId=root["root"]["nodeId"], selector=selector)
        await self.command("DOM.setFileInputFiles", files=[str(path)], nodeId=node["nodeId"])

    async def size(self, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
        """The window's size in CSS pixels, a phone's touch screen or not, light or dark."""
        await self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await self.command("Emulation.setEmulatedMedia", features=[scheme])

    async def screenshot(self, path: Path) -> None:
        picture = await self.command("Page.captureScreenshot", format="png")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(picture["data"]))

    async def close(self) -> None:
        self._reader.cancel()
        await self._ws.close()


class Chromium:
    """A browser process with a profile of its own, both gone at the end."""

    def __init__(self, *, microphone: Path | str | None = None, flags: tuple[str, ...] = ()) -> None:
        self._flags = [*FLAGS, *flags]
        if microphone is not None:
            self._flags.append(f"--use-file-for-fake-audio-capture={microphone}")
        self._pages: list[Page] = []

    async def __aenter__(self) -> Chromium:
        path = find_chromium()
        if path is None:
            raise BrowserFault("no Chromium on this machine")
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        self._process = await asyncio.create_subprocess_exec(
            path,
            *self._flags,
            f"--user-data-dir={self._profile}",
            "about:blank",
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            self._address = await self._devtools()
        except BaseException:
            await self._end()
            raise
        return self

    async def _devtools(self) -> str:
        file = Path(self._profile) / "DevToolsActivePort"
        for _ in range(400):
            if self._process.returncode is not None:
                raise BrowserFault(f"Chromium ended with status {self._process.returncode}")
            if file.exists() and len(lines := file.read_text().splitlines()) == 2:
                return f"ws://127.0.0.1:{lines[0]}"
            await asyncio.sleep(0.05)
        raise BrowserFault("Chromium did not open its DevTools port")

    async def open(self, url: str) -> Page:
        """A new tab with this page, loaded."""
        created = await self._command("Target.createTarget", url="about:blank")
        page = await self._attach(created["targetId"])
        await page.go(url)
        return page

    async def frame(self, part: str, seconds: float = 15.0) -> Page:
        """A frame of another site inside a tab, by a part of its address. It has a process of its own."""
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            listed = await self._command("Target.getTargets")
            for target in listed["targetInfos"]:
                if target["type"] == "iframe" and part in target["url"]:
                    return await self._attach(target["targetId"])
            await asyncio.sleep(0.05)
        raise BrowserFault(f"no frame of another site has {part} in its address")

    async def _command(self, method: str, **params: Any) -> dict[str, Any]:
        """One command to the browser itself, and its result."""
        browser = (Path(self._profile) / "DevToolsActivePort").read_text().splitlines()[1]
        async with connect(self._address + browser, max_size=64 << 20) as ws:
            await ws.send(json.dumps({"id": 1, "method": method, "params": params}))
            while (answer := json.loads(await ws.recv())).get("id") != 1:
                pass
        result: dict[str, Any] = answer["result"]
        return result

    async def _attach(self, target: str) -> Page:
        ws = await connect(f"{self._address}/devtools/page/{target}", max_size=64 << 20)
        page = Page(ws)
        self._pages.append(page)
        for domain in ("Page", "Runtime", "Log", "DOM"):
            await page.command(f"{domain}.enable")
        return page

    async def __aexit__(self, *_: object) -> None:
        for page in self._pages:
            with contextlib.suppress(Exception):
                await page.close()
        await self._end()

    async def _end(self) -> None:
        if self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), 5)
            except asyncio.TimeoutError:
                self._process.kill()
                await self._process.wait()
        shutil.rmtree(self._profile, ignore_errors=True)
