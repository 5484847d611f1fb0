"""The cost of each hop by itself: one way, from `dispatch` in one process to the decoded message in another.

Both processes read the same monotonic clock. A message carries its time of departure, in microseconds, as
its `pts`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import zmq

from protocol.hop.client import HopClient
from protocol.hop.results import ResultClient, ResultServer
from protocol.hop.server import HopServer
from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.messages import Clip, Frame, Latents, Pcm
from scripts.run.managed import ROOT, RunError

FRAMES = 12
rng = np.random.default_rng(0)


@dataclass(frozen=True)
class HopFigures:
    """One hop's one-way times in seconds, and the size of the payload that crossed it, in bytes."""

    name: str
    payload: int
    median: float
    p99: float


def measure_hops(count: int = 400, *, latent_side: int = 32) -> list[HopFigures]:
    """Measure all four hops with `count` messages each.

    Args:
        count: messages of each hop.
        latent_side: an eighth of the picture's side.

    Raises:
        RunError: a message did not arrive.
    """
    pcm = rng.uniform(-1, 1, 320).astype(np.float32)
    tokens = rng.normal(size=(FRAMES, 50, 384)).astype(np.float16)
    latents = rng.normal(size=(FRAMES, 4, latent_side, latent_side)).astype(np.float16)
    jpeg = rng.bytes(max(1000, latent_side * latent_side * 20))
    makers: list[tuple[str, int, Callable[[int], Pcm | Clip | Latents]]] = [
        (
            "pcm",
            pcm.nbytes,
            lambda n: Pcm("bench", 0, n, micros(), SAMPLE_RATE, 24, FRAMES, "a", "p", False, pcm),
        ),
        ("clips", tokens.nbytes, lambda n: Clip("bench", 0, n, micros(), 24, "a", "p", tokens)),
        ("latents", latents.nbytes, lambda n: Latents("bench", 0, n, micros(), 24, latents)),
    ]
    figures = [_measure_down(name, size, make, count) for name, size, make in makers]
    return [*figures, _measure_results(jpeg, count)]


def micros() -> int:
    """Now, on the clock that all processes of a machine share."""
    return time.monotonic_ns() // 1000


def _measure_down(
    name: str, size: int, make: Callable[[int], Pcm | Clip | Latents], count: int
) -> HopFigures:
    with tempfile.TemporaryDirectory() as folder:
        url = f"ipc://{folder}/{name}"
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        server = HopServer(context, url, sticky=name != "latents", dead_after=5.0, name=name)
        child = _start_child("receive", url, count)
        poller = zmq.Poller()
        poller.register(server.socket, zmq.POLLIN)
        sent, next_at = 0, float("inf")
        while child.poll() is None:
            poller.poll(1)
            server.on_readable()
            server.tick()
            now = time.monotonic()
            if server.workers and next_at == float("inf"):
                next_at = now + 0.1
            if sent < count and now >= next_at:
                server.dispatch(make(sent))
                sent += 1
                next_at = now + 0.005
        server.close()
        context.destroy(linger=0)
        return _figures(name, size, _child_times(child), count)


def _measure_results(jpeg: bytes, count: int) -> HopFigures:
    with tempfile.TemporaryDirectory() as folder:
        url = f"ipc://{folder}/results"
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        server = ResultServer(context, url)
        child = _start_child("send", url, count, len(jpeg))
        times: list[float] = []
        deadline = time.monotonic() + 30
        while len(times) < count and time.monotonic() < deadline:
            server.socket.poll(100)
            for sender, message in server.recv():
                if isinstance(message, Frame):
                    times.append((micros() - message.pts) / 1e6)
                    if message.index == message.count - 1:
                        server.confirm_clip(sender, message.session, message.epoch, message.seq)
        child.communicate(timeout=30)
        server.close()
        context.destroy(linger=0)
        return _figures("results", len(jpeg), times, count)


def _figures(name: str, size: int, times: list[float], count: int) -> HopFigures:
    if len(times) != count:
        raise RunError(f"hop {name}: {len(times)} of {count} messages arrived")
    return HopFigures(name, size, float(np.median(times)), float(np.percentile(times, 99)))


def _start_child(what: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scripts.bench.host.hops", what, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _child_times(child: subprocess.Popen[str]) -> list[float]:
    out, _ = child.communicate(timeout=30)
    return [float(value) for value in json.loads(out)]


def _receive(url: str, count: int) -> None:
    """Child: be a worker that acknowledges at once, print the one-way times."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    client = HopClient(context, [url], stage="bench", worker="0", credit=2)
    times: list[float] = []
    deadline = time.monotonic() + 30
    while len(times) < count and time.monotonic() < deadline:
        client.sockets[0].poll(50)
        client.heartbeat()
        for job in client.recv():
            assert isinstance(job.msg, (Pcm, Clip, Latents))
            times.append((micros() - job.msg.pts) / 1e6)
            client.ack(job)
    client.close()
    context.destroy(linger=200)
    print(json.dumps(times))


def _send(url: str, count: int, size: int) -> None:
    """Child: be an encoder that sends frames, each with its time of departure."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    client = ResultClient(context, url, stage="bench", worker="0")
    jpeg = rng.bytes(size)
    for number in range(count):
        seq, index = divmod(number, FRAMES)
        last = min(FRAMES, count - seq * FRAMES)
        client.send(Frame("bench", 0, seq, index, last, micros(), 256, 256, jpeg))
        time.sleep(0.005)
        client.confirmed()
    client.close()
    context.destroy(linger=1000)


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        _receive(sys.argv[2], int(sys.argv[3]))
    else:
        _send(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
