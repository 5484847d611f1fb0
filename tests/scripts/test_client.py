"""The command-line client against a small gateway that answers each clip with its sound and pictures."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.typing import Subprotocol

from protocol.wire.browser import SUBPROTOCOL_V2, AudioMessage, VideoMessage, encode_audio, encode_video
from scripts.talk import __main__ as client
from scripts.talk.live import Plan, speak
from scripts.talk.sound import write_wav
from tests.helpers.waiting import wait_for

pytestmark = pytest.mark.slow

JPEG = b"\xff\xd8picture\xff\xd9"
FPS, CLIP_FRAMES, CLIP = 24, 12, 8000


class TinyGateway:
    """Serves `/readyz`, `/avatars.json` and `/ws`.

    `lose` names the frame that never comes, `refuse` is an error to open with.
    """

    def __init__(self) -> None:
        self.lose = -1
        self.refuse = ""
        self.asked: list[dict[str, object]] = []
        self.shown = 0
        self.url = ""
        self.tasks: list[asyncio.Task[None]] = []  # nothing else keeps them

    def http(self, _socket: ServerConnection, request: Request) -> Response | None:
        if request.path not in ("/readyz", "/avatars.json"):
            return None
        body = json.dumps({"ready": True, "fps": FPS, "avatars": ["ada", "ben"]}).encode()
        return Response(HTTPStatus.OK, "OK", Headers({"Content-Length": str(len(body))}), body)

    async def session(self, socket: ServerConnection) -> None:
        version = 2 if socket.subprotocol == SUBPROTOCOL_V2 else 1
        sound = np.empty(0, np.float32)
        seq = 0
        if self.refuse:
            await socket.send(json.dumps({"type": "error", "code": "busy", "message": self.refuse}))
            return
        if version == 2:
            self.tasks.append(asyncio.create_task(self.tell_status(socket)))
        while True:
            try:
                message = await asyncio.wait_for(socket.recv(), 0.3 if len(sound) and version == 1 else None)
            except (TimeoutError, asyncio.TimeoutError):
                message = '{"type":"flush"}'
            if isinstance(message, str):
                text = json.loads(message)
                self.shown += text["type"] == "shown"
                if text["type"] == "hello":
                    self.asked.append(text)
                    await socket.send(json.dumps({"type": "ready", "fps": FPS, "clip_frames": CLIP_FRAMES}))
                if text["type"] == "flush" and len(sound):
                    await self.answer(socket, version, seq, sound)
                    sound, seq = sound[:0], seq + 1
                continue
            sound = np.concatenate([sound, np.frombuffer(message, "<f4")])
            while len(sound) >= CLIP:
                await self.answer(socket, version, seq, sound[:CLIP])
                sound, seq = sound[CLIP:], seq + 1

    async def tell_status(self, socket: ServerConnection) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await socket.send(json.dumps({"type": "status"}))
                await asyncio.sleep(0.1)

    async def answer(self, socket: ServerConnection, version: int, seq: int, sound: np.ndarray) -> None:
        at = seq * CLIP
        await socket.send(encode_audio(AudioMessage(sound, 0, seq, at, at), version))
        for index in range(CLIP_FRAMES):
            number = seq * CLIP_FRAMES + index
            if number != self.lose:
                picture = VideoMessage(JPEG, 0, seq, index, CLIP_FRAMES, number * 16000 // FPS)
                await socket.send(encode_video(picture, version))


@pytest.fixture
def gateway() -> Iterator[TinyGateway]:
    tiny = TinyGateway()
    started, loop = threading.Event(), asyncio.new_event_loop()
    stop = loop.create_future()

    async def main() -> None:
        def choose(_socket: ServerConnection, offered: Sequence[Subprotocol]) -> Subprotocol | None:
            return offered[0] if offered else None

        async with serve(
            tiny.session, "127.0.0.1", 0, select_subprotocol=choose, process_request=tiny.http
        ) as server:
            tiny.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            started.set()
            await stop

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    assert started.wait(5)
    yield tiny
    loop.call_soon_threadsafe(stop.set_result, None)
    thread.join(10)
    loop.close()


@pytest.fixture
def wav(tmp_path: Path) -> str:
    write_wav(tmp_path / "noise.wav", np.random.default_rng(0).uniform(-0.5, 0.5, 20000).astype(np.float32))
    return str(tmp_path / "noise.wav")


@pytest.mark.parametrize("flags", [[], ["--v2"], ["--v2", "--sessions", "2", "--avatars", "ada,ben"]])
def test_a_whole_session_passes(
    gateway: TinyGateway, wav: str, flags: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    folder = tmp_path / "frames"
    assert client.main([wav, "--url", gateway.url, "--json", "--save-frames", str(folder), *flags]) == 0
    reports = json.loads(capsys.readouterr().out)
    assert all(r["frames_received"] == 36 and r["echoed"] == 20000 for r in reports)
    assert len(list(folder.rglob("*.jpg"))) == 36 * len(reports)
    if "--v2" in flags:
        # the client leaves without waiting until the last of them is read
        wait_for(lambda: gateway.shown >= 36 * len(reports), 5)
        assert gateway.shown == 36 * len(reports)
    if "--avatars" in flags:
        assert sorted(str(hello["avatar"]) for hello in gateway.asked) == ["ada", "ben"]


@pytest.mark.parametrize("version", [1, 2])
def test_a_lost_frame_fails(gateway: TinyGateway, version: int) -> None:
    gateway.lose = 17
    plan = Plan(np.zeros(20000, np.float32), version=version, patience=1.0)
    report = asyncio.run(speak(gateway.url, plan, FPS, CLIP_FRAMES))
    assert "35 frames received, 36 expected" in report.problems
    assert len(report.problems) == 2


def test_a_refusal_is_told(gateway: TinyGateway, wav: str, capsys: pytest.CaptureFixture[str]) -> None:
    gateway.refuse = "all 4 seats are taken"
    assert client.main([wav, "--url", gateway.url, "--v2"]) == 2
    assert "busy: all 4 seats are taken" in capsys.readouterr().err


def test_no_gateway_is_told(wav: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert client.main([wav, "--url", "http://127.0.0.1:9"]) == 2
    assert "start scripts/run_all.sh" in capsys.readouterr().err


def test_no_file_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert client.main(["nowhere.wav"]) == 2
    assert "nowhere.wav" in capsys.readouterr().err


def test_an_animation_is_written(tmp_path: Path) -> None:
    import io

    from PIL import Image

    jpegs = []
    for shade in range(6):
        file = io.BytesIO()
        Image.new("RGB", (16, 16), (shade * 40, 0, 0)).save(file, "JPEG")
        jpegs.append(file.getvalue())
    client.save_animation(tmp_path / "a.webp", jpegs, 24)
    client.save_animation(tmp_path / "a.gif", jpegs, 24)
    for name, count in (("a.webp", 6), ("a.gif", 3)):
        with Image.open(tmp_path / name) as written:
            assert getattr(written, "n_frames", 1) == count
