"""A run over TCP: a session goes on beside another user of the machine who tries every port."""

from __future__ import annotations

import socket
from contextlib import ExitStack, suppress

import numpy as np
import pytest
import zmq

from protocol.process.settings import Settings
from protocol.wire.codec import encode
from protocol.wire.messages import Close, Message, Ready, Status
from tests.gateway.clients import client_v2, noise
from tests.gateway.conftest import running

pytestmark = pytest.mark.process


def ports_of(base: int) -> list[int]:
    """The ports of a run with one worker in each stage."""
    settings = Settings(transport="tcp", tcp_base_port=base)
    urls = [settings.endpoint(name) for name in ("pcm", "results")]
    urls += [settings.endpoint(name, 0) for name in ("clips", "latents")]
    return [int(url.rpartition(":")[2]) for url in urls]


def free_base() -> int:
    """A base port whose run finds its ports free."""
    for base in range(21000, 60000, 1000):
        with ExitStack() as probes:
            try:
                for port in ports_of(base):
                    probes.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return base
    raise AssertionError("no ports are free")


def stranger(context: zmq.Context[zmq.Socket[bytes]], port: int) -> zmq.Socket[bytes]:
    sock = context.socket(zmq.DEALER)
    sock.connect(f"tcp://127.0.0.1:{port}")
    for message in (Ready("audio_worker", "thief", 64), Status("gpu_worker", "fake", True, {"fps": 1}, {})):
        say(sock, message)
    return sock


def say(sock: zmq.Socket[bytes], message: Message) -> None:
    """Send where it is possible: a refused connection takes nothing."""
    with suppress(zmq.Again):
        sock.send_multipart(encode(message), zmq.NOBLOCK)


async def test_a_session_beside_a_stranger_at_the_ports_of_the_stages() -> None:
    base = free_base()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with running(transport="tcp", tcp_base_port=base) as run:
        strangers = [stranger(context, port) for port in ports_of(base)]
        sound = noise(1.0)
        async with client_v2(run) as client:
            await client.until(lambda c: any(text["type"] == "ready" for text in c.texts))
            for sock in strangers:
                say(sock, Close(client.text("ready")["session"], 0))
            await client.speak(sound)
            await client.until(lambda c: len(c.frames) == 24)
            assert client.text("ready")["fps"] == 24
            assert np.array_equal(client.heard, sound)
        assert not any(sock.poll(50) for sock in strangers)
    context.destroy(linger=0)
