"""Slow, fast, wrong and hostile clients: each is told, none harms another."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.typing import Origin, Subprotocol

from protocol.wire.browser import MAX_MESSAGE_BYTES, SUBPROTOCOL_V2
from tests.gateway.clients import StallWatch, client_v1, client_v2, noise
from tests.gateway.conftest import Running
from tests.helpers.fake_stages import avatar_of

pytestmark = [pytest.mark.process, pytest.mark.timing]


@pytest.fixture(scope="module", autouse=True)
def bystander(gateway: Running) -> Iterator[None]:
    """Another session that speaks all the while and must not notice anything.

    Where the machine stops it for as long as `idle_flush`, the gateway rightly takes that for a pause and
    ends a clip early. Each such stop gives at most one clip more than was spoken.
    """
    stop = threading.Event()

    async def speak() -> None:
        spoken: list[npt.NDArray[np.float32]] = []
        async with client_v2(gateway, hello={"avatar": "chen"}) as client, StallWatch() as watch:
            while not stop.is_set():
                spoken.append(noise(0.5, len(spoken)))
                await client.speak(spoken[-1])
            # The sound of the last clip goes on after its last picture was sent.
            samples = sum(map(len, spoken))
            await client.until(lambda c: len(c.heard) == samples and len(c.frames) == 12 * len(c.audio))
            stops = sum(pause > 0.5 * gateway.settings.idle_flush for pause in watch.pauses)
            assert len(spoken) <= len(client.audio) <= len(spoken) + stops
            assert np.array_equal(client.heard, np.concatenate(spoken))
            assert {avatar_of(frame.data) for frame in client.frames} == {"chen"}

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(asyncio.run, speak())
        yield
        stop.set()
        done.result(20)


@pytest.mark.parametrize(
    ("payload", "code", "word"),
    [
        (b"abc", 1007, "bad_audio: 3 bytes"),
        (np.array([np.nan] * 4, "<f4").tobytes(), 1007, "NaN"),
        (np.array([np.inf] * 4, "<f4").tobytes(), 1007, "infinite"),
        (np.array([12000.0], "<f4").tobytes(), 1007, "int16"),
        (b"\0" * (MAX_MESSAGE_BYTES + 4), 1009, ""),
        ("hello", 1003, "echomimic-live.v2"),
    ],
)
async def test_version_1_closes_with_a_reason(
    gateway: Running, payload: bytes | str, code: int, word: str
) -> None:
    async with client_v1(gateway) as client:
        await client.ws.send(payload)
        got, reason = await client.closed()
        assert got == code and word in reason


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b"abc", "bad_audio"),
        ("{", "bad_message"),
        ("[" * 4000, "bad_message"),
        ('{"type":"hello"}', "bad_message"),
        ('{"type":"options","avatar":"nobody"}', "bad_option"),
        ('{"type":"options","fps":23}', "bad_option"),
    ],
)
async def test_version_2_tells_in_json(gateway: Running, payload: bytes | str, code: str) -> None:
    async with client_v2(gateway) as client:
        await client.ws.send(payload)
        await client.closed()
        assert client.text("error")["code"] == code and len(client.text("error")["message"]) > 10
        assert (client.ws.close_reason or "").startswith(code)


@pytest.mark.parametrize(
    "hello", [{"avatar": "nobody"}, {"pose": "../x"}, {"sample_rate": 12345}, {"fps": 7}]
)
async def test_options_that_cannot_be_had(gateway: Running, hello: dict[str, object]) -> None:
    async with client_v2(gateway, hello=hello) as client:
        assert (await client.closed())[0] == 1008
        assert client.text("error")["code"] == "bad_option"
    async with client_v1(gateway, "?avatar=nobody") as client:
        code, reason = await client.closed()
        assert code == 1008 and "there are ada, bruno, chen" in reason


async def test_sound_before_hello(gateway: Running) -> None:
    async with connect(gateway.url("/ws", "ws"), subprotocols=[Subprotocol(SUBPROTOCOL_V2)]) as ws:
        await ws.send(b"\0" * 400)
        assert json.loads(await ws.recv())["code"] == "no_hello"


async def test_one_session_too_many_is_told_busy(gateway: Running) -> None:
    async with client_v2(gateway), client_v1(gateway):
        async with client_v2(gateway) as late:
            assert (await late.closed())[0] == 1013
            assert late.text("error")["code"] == "busy"
        async with client_v1(gateway) as late:
            code, reason = await late.closed()
            assert code == 1013 and reason.startswith("busy: 3 of 3")


async def test_a_poured_file_comes_at_real_time(gateway: Running) -> None:
    """The stages are faked in this process. Where the machine stops it for a while the gateway rightly gives
    up pictures so as not to fall behind, and only then is the file poured again."""
    sound = noise(4.0, 7)
    for _ in range(4):
        async with client_v1(gateway) as client, StallWatch() as watch:
            start = asyncio.get_running_loop().time()
            await client.speak(sound, pace=0, chunk=0.5)
            await client.until(lambda c: len(c.heard) >= len(sound), 20)
            assert np.array_equal(client.heard, sound)
            sounds = [when - start for when, kind in client.times if kind == "audio"]
            assert all(when > 0.5 * clip - 0.02 for clip, when in enumerate(sounds)), sounds
            try:
                await client.until(lambda c: len(c.frames) == 96, 5)
            except AssertionError:
                if watch.longest < 0.5:
                    raise
                continue
            assert client.times[-1][0] - start > 3.9
            return
    pytest.fail(f"this process was stopped each time, at last for {watch.longest:.1f} s")


async def test_far_too_much_at_once_is_an_error(gateway: Running) -> None:
    async with client_v2(gateway) as client:
        with suppress(ConnectionClosedError):
            for _ in range(9):
                await client.ws.send(noise(15.0).tobytes())
        await client.closed()
        assert client.text("error")["code"] == "too_fast"


async def test_a_flood_of_tiny_messages_is_an_error(gateway: Running) -> None:
    async with client_v2(gateway) as client:
        with suppress(ConnectionClosedError):
            for _ in range(3000):
                await client.ws.send(b"\0" * 4)
        await client.closed()
        assert client.text("error")["code"] == "too_fast"


async def test_options_changed_all_the_time_are_an_error(gateway: Running) -> None:
    async with client_v2(gateway) as client:
        for step in range(12):
            await client.ws.send(json.dumps({"type": "options", "avatar": ("ada", "bruno")[step % 2]}))
        await client.closed()
        assert client.text("error")["code"] == "too_fast"


async def test_a_client_that_shows_nothing_gets_less_and_is_then_closed(gateway: Running) -> None:
    async with client_v2(gateway, acks=False) as client:
        speaking = asyncio.create_task(client.speak(noise(20.0, 8)))
        code, reason = await client.closed(20)
        speaking.cancel()
        assert code == 1008 and reason.startswith("slow_client")
        # one second of frames, and their sound while it waited for the client to take them
        assert 24 <= len(client.frames) <= 25
        assert len(client.audio) > 6
        assert client.text("status")["frames_dropped"] > 0


async def test_a_client_that_reads_nothing_is_closed_and_bounded(gateway: Running) -> None:
    with socket.create_connection(("127.0.0.1", gateway.settings.port)) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        host = f"Host: 127.0.0.1:{gateway.settings.port}\r\n"
        sock.sendall(
            f"GET /ws HTTP/1.1\r\n{host}Upgrade: websocket\r\nConnection: Upgrade\r\n{key}\r\n".encode()
        )
        sent = gateway.metric("echomimic_sent_bytes_total")
        sock.setblocking(False)
        pcm = noise(0.05, 9).tobytes()
        head = bytes([0x82, 0x80 | 126]) + len(pcm).to_bytes(2, "big") + b"\0\0\0\0"
        for _ in range(60):
            try:
                sock.send(head + pcm)
            except (BlockingIOError, ConnectionError):
                break
            await asyncio.sleep(0.05)
        assert gateway.metric("echomimic_sent_bytes_total") - sent < 8 << 20


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "https://127.0.0.1",
        "http://127.0.0.1:1",
        "http://localhost.evil.example",
    ],
)
async def test_pages_of_other_origins_may_not_connect(gateway: Running, origin: str) -> None:
    with pytest.raises(InvalidStatus) as err:
        await connect(gateway.url("/ws", "ws"), origin=Origin(origin))
    assert err.value.response.status_code == 403


async def test_its_own_page_may_connect(gateway: Running) -> None:
    async with client_v2(gateway, origin=f"http://127.0.0.1:{gateway.settings.port}") as client:
        assert client.text("ready")


async def test_a_name_that_was_made_to_point_here_is_refused(gateway: Running) -> None:
    headers = {"Host": f"evil.example:{gateway.settings.port}"}
    with pytest.raises(InvalidStatus) as err:
        await connect(
            gateway.url("/ws", "ws"), additional_headers=headers, origin=Origin(f"http://{headers['Host']}")
        )
    assert err.value.response.status_code in (400, 421)


async def test_other_subprotocols_and_paths_are_refused(gateway: Running) -> None:
    for path, protocols, status in (("/ws", [Subprotocol("other.v1")], 400), ("/socket", None, 404)):
        with pytest.raises(InvalidStatus) as err:
            await connect(gateway.url(path, "ws"), subprotocols=protocols)
        assert err.value.response.status_code == status
