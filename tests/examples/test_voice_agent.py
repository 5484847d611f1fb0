"""The example of a voice agent with a stand-in of its models: it answers, and lets itself be interrupted."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from protocol.process.settings import ROOT
from tests.gateway.clients import noise
from tests.gateway.conftest import free_port, running
from tests.helpers.http_service import serving
from tests.helpers.voice import needs_espeak, voice_worker

pytestmark = [pytest.mark.process, pytest.mark.timing]

SENTENCES = ["The weather is fine.", "It will be warm all day.", "Tomorrow there may be some rain."]


class Models:
    """What a service of OpenAI's form was asked, and its answers."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.chats: list[list[dict[str, str]]] = []


@contextmanager
def models() -> Iterator[tuple[str, Models]]:
    """A stand-in of the models: it hears questions, and streams three sentences word by word."""
    asked = Models()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            if self.path == "/v1/audio/transcriptions":
                asked.heard.append(body)
                self.wfile.write(json.dumps({"text": f"Question {len(asked.heard)}?"}).encode())
                return
            assert self.path == "/v1/chat/completions"
            asked.chats.append(json.loads(body)["messages"])
            for word in " ".join(SENTENCES).split():
                piece = {"choices": [{"delta": {"content": f"{word} "}}]}
                self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
                self.wfile.flush()
                time.sleep(0.02)
            self.wfile.write(b"data: [DONE]\n\n")

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Handler) as address:
        yield f"{address}/v1", asked


@contextmanager
def agent(face: str, api: str) -> Iterator[str]:
    """The example's program. Gives the address of its websocket."""
    port = free_port()
    command = [sys.executable, "examples/voice-agent/agent.py", "--face", face, "--api", api]
    process = subprocess.Popen([*command, "--port", str(port)], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline().startswith(b"ready: ")
        yield f"ws://127.0.0.1:{port}/"
    finally:
        process.kill()
        process.communicate()


class Person:
    """The page: it sends sound in real time, and notes what comes."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.pictures: list[float] = []
        self.sounds: list[float] = []
        self.interrupted: list[float] = []

    async def read(self) -> None:
        async for message in self.socket:
            now = time.monotonic()
            if isinstance(message, str):
                self.interrupted.append(now)
            else:
                (self.pictures if message[0] == 1 else self.sounds).append(now)

    async def send(self, sound: np.ndarray) -> None:
        for start in range(0, len(sound), 320):
            await self.socket.send(sound[start : start + 320].astype("<f4").tobytes())
            await asyncio.sleep(0.02)

    async def quiet_until(self, condition: Any, seconds: float = 15.0) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (len(self.pictures), len(self.sounds), self.interrupted)
            await self.send(0.001 * noise(0.1))


@needs_espeak
async def test_the_agent_answers_and_falls_silent_when_it_is_spoken_over() -> None:
    with (
        models() as (api, asked),
        running(max_sessions=2, voice_engine="espeak-ng") as run,
        voice_worker(run.settings),
        agent(run.url(), api) as address,
    ):
        with pytest.raises(InvalidStatus):  # another site's page may not use it
            await connect(address, origin=Origin("https://a.example"))
        async with connect(address, proxy=None) as socket:
            person = Person(socket)
            reading = asyncio.create_task(person.read())
            await person.send(0.001 * noise(0.5))
            await person.send(noise(0.8))
            await person.quiet_until(lambda: len(person.pictures) > 30)
            assert b'name="file"; filename="speech.wav"' in asked.heard[0] and b"RIFF" in asked.heard[0]
            assert asked.chats[0][-1] == {"role": "user", "content": "Question 1?"}

            began = time.monotonic()  # speak over it
            await person.send(noise(0.8, 2))
            await person.quiet_until(lambda: person.interrupted)
            assert person.interrupted[0] - began < 1.0
            await person.quiet_until(lambda: len(asked.chats) == 2)
            silent = [at for at in person.pictures if person.interrupted[0] + 0.05 < at < began + 0.8]
            assert not silent
            # the model learns that it was cut off
            spoken = asked.chats[1][-2]
            assert spoken["role"] == "assistant" and spoken["content"].endswith("…")
            assert spoken["content"].startswith(SENTENCES[0]) and SENTENCES[2] not in spoken["content"]
            pictures = len(person.pictures)
            await person.quiet_until(lambda: len(person.pictures) > pictures + 12)
            reading.cancel()
