"""Networks that are slow, stand still and break, and a gateway that is killed, under a client that speaks."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import statistics
import time
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import suppress

import numpy as np
import psutil
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from protocol.wire.browser import SUBPROTOCOL_V2
from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.messages import Samples
from scripts.run.managed import ManagedRun
from scripts.torture.faults import Figure, Trial, worker_pids
from scripts.torture.proxy import PoorNetwork
from scripts.torture.resuming import LiveStream, ResumingClient

#: Seconds from one reset to the next.
BETWEEN_RESETS = (4.0, 8.0)
#: Seconds after a stand-still at which the delay is normal again.
NORMAL_AFTER = 2.0
#: Seconds by which the delay may be longer than before.
TOLERATED = 0.25


async def speak_through(
    network: PoorNetwork, voice: Samples, faults: Callable[[LiveStream], Awaitable[None]]
) -> LiveStream:
    """Let a client speak through the network while `faults` happen to it. Returns its stream."""
    stream = LiveStream()
    speaking = asyncio.create_task(ResumingClient(network.url, voice, stream).run())
    try:
        await faults(stream)
    finally:
        stream.over = True
        await speaking
    return stream


def reset_figures(stream: LiveStream, resets: int) -> list[Figure]:
    """Figures of a client whose connection was broken now and then."""
    comings = stream.ready_at[1:]
    ends = [*stream.lost_at[1:], time.monotonic()]
    lost = [stream.lost_sound(at, end) for at, end in zip(stream.lost_at, ends, strict=False)]
    back = [stream.back_after(at) for at in comings]
    away = [ready - gone for gone, ready in zip(stream.lost_at, comings, strict=False)]
    return [
        Figure("resets", resets, None, "n"),
        Figure("resets after which the session did not go on", resets - len(comings), 0, "n"),
        Figure("sessions", len(stream.sessions), 1, "n"),
        Figure("sound lost for a reset, most", max(lost, default=0.0), 0.5),
        Figure("sound lost for a reset, median", statistics.median(lost) if lost else 0.0),
        Figure("without a connection, most", max(away, default=0.0)),
        Figure("a picture is back after the session goes on, most", max(back, default=0.0), 1.0),
        Figure("sound played faster, and pauses cut", stream.faster),
        Figure("sound that nobody accounts for", stream.unaccounted(), 0.25),
        *picture_figures(stream),
    ]


def picture_figures(stream: LiveStream) -> list[Figure]:
    """How well pictures and sound went together."""
    return [
        Figure("picture after its sound, most", max(stream.offsets, default=0.0), 0.08),
        Figure("pictures shown", len(stream.shown), None, "n"),
        Figure("pictures passed over", stream.passed_over, None, "n"),
        Figure("pictures doubled", stream.doubled, 0, "n"),
        Figure("pictures out of order", stream.out_of_order, 0, "n"),
    ]


def delay_figures(stream: LiveStream, before: float, after: float, name: str) -> list[Figure]:
    """The delay of the sound before a fault and after it. `before` and `after` are times."""
    normal = statistics.median(stream.delays(before - 3, before))
    late = stream.delays(after + NORMAL_AFTER, after + NORMAL_AFTER + 2)
    more = statistics.median(late) - normal if late else float("inf")
    return [
        Figure(f"{name}: delay of the sound before", normal),
        Figure(f"{name}: more than that {NORMAL_AFTER:g} s after", more, TOLERATED),
        Figure(f"{name}: sound lost", stream.lost_sound(before, after + NORMAL_AFTER + 2)),
    ]


async def resets(port: int, voice: Samples, seconds: float, seed: int = 3) -> list[Figure]:
    """Measure a network of 200 ± 150 ms that breaks every 4 to 8 s."""
    async with PoorNetwork(port, delay=0.2, jitter=0.15, seed=seed) as network:
        chance = random.Random(seed)
        end = time.monotonic() + seconds

        async def break_it(stream: LiveStream) -> None:
            while (wait := chance.uniform(*BETWEEN_RESETS)) + 5 < end - time.monotonic():
                await asyncio.sleep(wait)
                network.reset()
            await asyncio.sleep(end - time.monotonic())

        stream = await speak_through(network, voice, break_it)
        return reset_figures(stream, network.resets)


async def stand_stills(port: int, voice: Samples, lengths: tuple[float, ...], rest: float) -> list[Figure]:
    """Measure a network that stands still for these times, with `rest` seconds before each."""
    spans: list[tuple[float, float]] = []
    async with PoorNetwork(port) as network:

        async def stop_it(_stream: LiveStream) -> None:
            for length in lengths:
                await asyncio.sleep(rest)
                before = time.monotonic()
                await network.stand_still(length)
                spans.append((before, time.monotonic()))
            await asyncio.sleep(rest)

        stream = await speak_through(network, voice, stop_it)
    figures = []
    for length, (before, after) in zip(lengths, spans, strict=True):
        figures += delay_figures(stream, before, after, f"{length:g} s")
    return [
        *figures,
        Figure("sessions", len(stream.sessions), 1, "n"),
        Figure("connections", len(stream.ready_at), None, "n"),
        Figure("sound that nobody accounts for", stream.unaccounted(), 0.25),
        *picture_figures(stream),
    ]


def slow_network(voice: Samples, *flags: str, seconds: float = 60.0) -> list[Figure]:
    """The network takes 200 ± 150 ms and breaks every 4 to 8 s."""
    with ManagedRun(*flags) as run:
        return asyncio.run(resets(run.port, voice, seconds))


def still_network(
    voice: Samples, *flags: str, lengths: tuple[float, ...] = (2.0, 4.0, 8.0), rest: float = 9.0
) -> list[Figure]:
    """The network stands still for 2, 4 and 8 s, and then all comes."""
    with ManagedRun(*flags) as run:
        return asyncio.run(stand_stills(run.port, voice, lengths, rest))


def answers(url: str) -> bool:
    """Whether the gateway answers."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{url}/healthz", timeout=1) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def gateway_killed(voice: Samples, *flags: str) -> list[Figure]:
    """The gateway is killed, and the supervisor starts it again."""
    with ManagedRun(*flags) as run:
        times: dict[str, float] = {}

        async def kill_it(_stream: LiveStream) -> None:
            await asyncio.sleep(6.0)
            os.kill(worker_pids(run, "gateway")[0], signal.SIGKILL)
            times["killed"] = time.monotonic()
            while not await asyncio.to_thread(answers, run.url):
                await asyncio.sleep(0.02)
            times["back"] = time.monotonic()
            await asyncio.sleep(14.0)

        async def scenario() -> LiveStream:
            async with PoorNetwork(run.port) as network:
                return await speak_through(network, voice, kill_it)

        stream = asyncio.run(scenario())
    killed, back = times["killed"], times["back"]
    goes_on = next((at for at in stream.ready_at if at > killed), float("inf"))
    settled = stream.delays(back + 10, back + 14)
    normal = statistics.median(stream.delays(killed - 3, killed))
    return [
        Figure("the gateway answers again after", back - killed),
        Figure("the client's session goes on after that", goes_on - back, 3.0),
        Figure("the next picture is shown after that", stream.back_after(back), 3.0),
        Figure("sessions", len(stream.sessions), 1, "n"),
        Figure("epochs", len({epoch for epoch, _, _ in stream.places}), 2, "n"),
        Figure("sound lost", stream.lost_sound(killed, time.monotonic()), 0.5),
        Figure(
            "delay of the sound, more than before, 10 s after", statistics.median(settled) - normal, TOLERATED
        ),
        *picture_figures(stream),
    ]


async def beside_a_silent_one(port: int, voice: Samples, seconds: float) -> list[Figure]:
    """Measure a client that takes nothing, and a healthy one beside it before and meanwhile."""
    url = f"http://127.0.0.1:{port}"
    healthy, silent = LiveStream(), LiveStream()
    clients = [asyncio.create_task(ResumingClient(url, voice, one).run()) for one in (healthy, silent)]
    await asyncio.sleep(seconds)
    since, had = time.monotonic(), len(silent.places)
    silent.takes_nothing = True
    while not silent.lost_at and time.monotonic() < since + 15:
        await asyncio.sleep(0.02)
    cut, held = time.monotonic() - since, len(silent.places) - had
    healthy.over = silent.over = True
    await asyncio.gather(*clients)
    before, meanwhile = (
        float(np.percentile([late for at, late in healthy.arrivals if begin < at < end], 99))
        for begin, end in ((since - seconds + 2, since), (since, since + cut))
    )
    return [
        Figure("frames that it got before it was cut", held, 24, "n"),
        Figure("cut after", cut, 6.0),
        Figure("the healthy one's p99 before: both take frames", before),
        Figure("the healthy one's p99 meanwhile, more than before", meanwhile - before, 0.1 * before + 0.01),
    ]


def silent_client(voice: Samples, *flags: str) -> list[Figure]:
    """A client takes nothing that it is sent, beside a healthy one."""
    with ManagedRun(*flags) as run:
        return asyncio.run(beside_a_silent_one(run.port, voice, 8.0))


async def until_cut(port: int, version: int) -> float:
    """Speak on a websocket, read nothing from it, and wait until the gateway ends it.

    Returns:
        Seconds from the last byte that was read until the connection is no longer established.
    """
    names = [Subprotocol(SUBPROTOCOL_V2)] if version > 1 else None
    address = f"ws://127.0.0.1:{port}/ws"
    async with connect(address, subprotocols=names, ping_interval=None, close_timeout=0.1) as ws:
        if version > 1:
            await ws.send(json.dumps({"type": "hello"}))
            await ws.recv()
        ws.transport.pause_reading()
        own, since = ws.local_address[1], time.monotonic()
        while time.monotonic() < since + 60:
            with suppress(ConnectionClosed, asyncio.TimeoutError):
                noise = np.random.default_rng(0).uniform(-0.3, 0.3, SAMPLE_RATE // 10)
                await asyncio.wait_for(ws.send(noise.astype("<f4").tobytes()), 1.0)
            served = [c for c in psutil.net_connections("tcp") if c.raddr and c.raddr[1] == own]
            if not any(c.status == psutil.CONN_ESTABLISHED for c in served):
                break
            await asyncio.sleep(0.1)
        return time.monotonic() - since


def deaf_client(voice: Samples, *flags: str) -> list[Figure]:
    """A client does not even read its socket. Version 1 acknowledges nothing, so full buffers tell it."""
    with ManagedRun(*flags) as run:
        return [
            Figure(f"version {version}: ended after", asyncio.run(until_cut(run.port, version)), most)
            for version, most in ((2, 10.0), (1, 15.0))
        ]


TRIALS: dict[str, Trial] = {
    "deaf-client": deaf_client,
    "network-resets": slow_network,
    "network-still": still_network,
    "gateway-killed": gateway_killed,
    "silent-client": silent_client,
}
