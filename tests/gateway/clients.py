"""Small websocket clients for the tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.typing import Subprotocol

from protocol.wire.browser import SUBPROTOCOL_V2, AudioMessage, VideoMessage, decode_down


class Server(Protocol):
    """Where a client connects."""

    def url(self, path: str = "/", scheme: str = "http") -> str:
        """The address of `path`."""
        ...


def sound_of(data: bytes, version: int) -> AudioMessage:
    """The message, which must carry sound."""
    message = decode_down(data, version)
    assert isinstance(message, AudioMessage)
    return message


def frame_of(data: bytes, version: int) -> VideoMessage:
    """The message, which must carry a frame."""
    message = decode_down(data, version)
    assert isinstance(message, VideoMessage)
    return message


def noise(seconds: float, seed: int = 0, rate: int = 16000) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.3, 0.3, int(seconds * rate)).astype(np.float32)


class Client:
    """Collects everything that comes down."""

    def __init__(self, ws: ClientConnection, version: int, acks: bool = True) -> None:
        self.ws = ws
        self.version = version
        self.acks = acks
        self.frames: list[VideoMessage] = []
        self.audio: list[AudioMessage] = []
        self.texts: list[dict[str, Any]] = []
        self.times: list[tuple[float, str]] = []
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        try:
            await self._collect()
        except ConnectionClosedError:
            pass  # tests look at the code and the reason

    async def _collect(self) -> None:
        async for data in self.ws:
            now = asyncio.get_running_loop().time()
            if isinstance(data, str):
                self.texts.append(json.loads(data))
                continue
            message = decode_down(data, self.version)
            if isinstance(message, AudioMessage):
                self.audio.append(message)
                self.times.append((now, "audio"))
                continue
            self.frames.append(message)
            self.times.append((now, "frame"))
            if self.version == 2 and self.acks:
                shown = {"type": "shown", "epoch": message.epoch, "seq": message.seq, "index": message.index}
                with suppress(ConnectionClosed):  # messages behind this frame are still to be read
                    await self.ws.send(json.dumps(shown))

    async def speak(
        self, samples: np.ndarray, pace: float = 1.0, chunk: float = 0.05, rate: int = 16000
    ) -> None:
        """Send samples; `pace` 1 is real time, 0 as fast as it goes."""
        step = int(chunk * rate)
        start = asyncio.get_running_loop().time()
        for place in range(0, len(samples), step):
            await self.ws.send(samples[place : place + step].astype("<f4").tobytes())
            if pace:
                due = start + (place + step) / rate * pace
                await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))

    async def until(self, condition: Any, seconds: float = 8.0) -> None:
        end = asyncio.get_running_loop().time() + seconds
        while not condition(self):
            if self._reader.done() and not condition(self):
                raise AssertionError(f"closed: {self.ws.close_code} {self.ws.close_reason} {self.texts[-1:]}")
            assert asyncio.get_running_loop().time() < end, (
                f"{len(self.frames)} frames, {len(self.audio)} sounds, {self.texts[-2:]}"
            )
            await asyncio.sleep(0.01)

    async def closed(self, seconds: float = 8.0) -> tuple[int | None, str]:
        """Wait for the close. Its code and its reason."""
        await asyncio.wait_for(self.ws.wait_closed(), seconds)
        # What arrived before the close may still stand in the reader's queue.
        await asyncio.wait_for(asyncio.shield(self._reader), seconds)
        return self.ws.close_code, self.ws.close_reason or ""

    @property
    def heard(self) -> np.ndarray:
        return np.concatenate([np.empty(0, np.float32), *(message.samples for message in self.audio)])

    def text(self, kind: str) -> dict[str, Any]:
        return [text for text in self.texts if text["type"] == kind][-1]


class StallWatch:
    """Notes how long this process was kept from running, inside the `async with`.

    Attributes:
        pauses: each such pause, in seconds. The first is 0.
    """

    def __init__(self) -> None:
        self.pauses = [0.0]

    @property
    def longest(self) -> float:
        return max(self.pauses)

    async def __aenter__(self) -> StallWatch:
        self._watching = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._watching.cancel()

    async def _watch(self) -> None:
        before = asyncio.get_running_loop().time()
        while True:
            await asyncio.sleep(0.02)
            now = asyncio.get_running_loop().time()
            if now - before > 0.05:
                self.pauses.append(now - before)
            before = now


@asynccontextmanager
async def client_v1(server: Server, query: str = "", **options: Any) -> AsyncIterator[Client]:
    async with connect(server.url(f"/{query}", "ws"), **options) as ws:
        yield Client(ws, 1)


@asynccontextmanager
async def client_v2(
    server: Server, acks: bool = True, ready: bool = True, hello: dict[str, Any] | None = None, **options: Any
) -> AsyncIterator[Client]:
    async with connect(server.url("/ws", "ws"), subprotocols=[Subprotocol(SUBPROTOCOL_V2)], **options) as ws:
        await ws.send(json.dumps({"type": "hello", **(hello or {})}))
        client = Client(ws, 2, acks)
        if ready:
            await client.until(lambda c: c.texts)
        yield client
