"""The trials: an agent's client on the bare wire, with the time of each message."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from protocol.wire.browser import SUBPROTOCOL_V2, AudioMessage, VideoMessage, decode_down
from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.messages import Samples
from scripts.bench.host.agent.heard import HeardClip, SentPiece

#: Seconds for anything that is waited for.
PATIENCE = 60.0
#: Samples of the longest message.
_MESSAGE = 1 << 17


class AgentClient:
    """A session whose messages are kept with their times, in seconds of `time.monotonic`."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self.frames: list[tuple[float, VideoMessage]] = []
        self.sounds: list[tuple[float, AudioMessage]] = []
        self.texts: list[tuple[float, dict[str, Any]]] = []
        self._news = asyncio.Event()

    async def read(self) -> None:
        """Take everything that comes, and say that it is shown."""
        async for data in self._socket:
            now = time.monotonic()
            if isinstance(data, str):
                self.texts.append((now, json.loads(data)))
            elif isinstance(message := decode_down(data, 2), VideoMessage):
                self.frames.append((now, message))
                shown = {"type": "shown", "epoch": message.epoch, "seq": message.seq, "index": message.index}
                await self._socket.send(json.dumps(shown))
            else:
                self.sounds.append((now, message))
            self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds. Raises TimeoutError."""
        end = time.monotonic() + PATIENCE
        while not condition():
            self._news.clear()
            await asyncio.wait_for(self._news.wait(), max(0.01, end - time.monotonic()))

    async def push(self, samples: Samples) -> None:
        """Send sound, shape (n,)."""
        for start in range(0, len(samples), _MESSAGE):
            await self._socket.send(samples[start : start + _MESSAGE].astype("<f4").tobytes())

    async def text(self, kind: str, **fields: object) -> None:
        """Send a text."""
        await self._socket.send(json.dumps({"type": kind, **fields}))


@asynccontextmanager
async def agent(url: str) -> AsyncIterator[AgentClient]:
    """A session of its own."""
    address = url.replace("http", "ws", 1) + "/ws"
    async with connect(
        address, subprotocols=[Subprotocol(SUBPROTOCOL_V2)], max_size=1 << 24, proxy=None
    ) as ws:
        client = AgentClient(ws)
        await client.text("hello")
        reading = asyncio.create_task(client.read())
        try:
            await client.until(lambda: any(text["type"] == "ready" for _, text in client.texts))
            yield client
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def interruptions(url: str, speech: Samples, trials: int) -> tuple[list[float], list[float]]:
    """Interrupt a session while 20 s of speech wait, at moments drawn by chance.

    Returns:
        Seconds to the answer, and to the last frame of the old epoch (negative: none came after), per trial.
    """
    answers, lasts = [], []
    chance = random.Random(1)
    async with agent(url) as client:
        for trial in range(trials):
            await client.push(speech[: 20 * SAMPLE_RATE])
            await client.until(lambda n=trial: any(frame.epoch == n for _, frame in client.frames))  # type: ignore[misc]
            await asyncio.sleep(chance.uniform(0.0, 0.6))
            asked = time.monotonic()
            await client.text("interrupt")
            await client.until(
                lambda n=trial: sum(t["type"] == "interrupted" for _, t in client.texts) > n  # type: ignore[misc]
            )
            answers.append(client.texts[-1][0] - asked)
            await asyncio.sleep(0.3)
            lasts.append(max(at for at, frame in client.frames if frame.epoch <= trial) - asked)
            client.frames.clear()
            client.sounds.clear()
    return answers, lasts


async def first_frames(url: str, speech: Samples, trials: int) -> list[float]:
    """Seconds from the sending of 30 s at once to the first frame, in a session of its own each."""
    found = []
    for _ in range(trials):
        async with agent(url) as client:
            began = time.monotonic()
            await client.push(speech[: 30 * SAMPLE_RATE])
            await client.until(lambda: bool(client.frames))
            found.append(client.frames[0][0] - began)
    return found


async def slow_speech(
    url: str, speech: Samples, plan: list[tuple[float, float]]
) -> tuple[list[SentPiece], list[HeardClip]]:
    """Speak by a plan of pieces. Returns the pieces as they were sent, and the clips as they came."""
    async with agent(url) as client:
        began, place = time.monotonic(), 0
        sent = []
        for at, seconds in plan:
            await asyncio.sleep(max(0.0, began + at - time.monotonic()))
            count = round(seconds * SAMPLE_RATE)
            sent.append(SentPiece(time.monotonic(), count))
            await client.push(np.take(speech, range(place, place + count), mode="wrap"))
            place += count
        await client.text("flush")
        await client.until(lambda: sum(len(sound.samples) for _, sound in client.sounds) >= place)
        return sent, [HeardClip(at, sound.pts, len(sound.samples)) for at, sound in client.sounds]
