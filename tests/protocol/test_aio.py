from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Iterator

import pytest
import zmq

from protocol.hop.aio import pump, watch_ends
from protocol.hop.client import HopClient
from protocol.hop.results import ResultClient, ResultServer
from protocol.hop.server import Acked, HopEvent, HopServer
from protocol.wire.messages import Frame, Status
from tests.protocol.samples import one_frame, one_pcm

pytestmark = pytest.mark.timing

Context = zmq.Context[zmq.Socket[bytes]]


@pytest.fixture
def echoing_worker(endpoint: str) -> Iterator[None]:
    """A worker in a thread that acknowledges whatever comes."""
    stop = threading.Event()

    def work() -> None:
        ctx: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        client = HopClient(ctx, [endpoint], stage="w", worker="0", credit=2)
        while not stop.is_set():
            client.heartbeat()
            client.sockets[0].poll(20)
            for job in client.recv():
                client.ack(job)
        client.close()
        ctx.term()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


async def test_round_trips_are_prompt_although_sends_hide_edges(
    ctx: Context, endpoint: str, echoing_worker: None
) -> None:
    """Sends from outside the pump consume the socket's edge; a pump that missed one would sleep 0.1 s."""
    server = HopServer(ctx, endpoint, sticky=True, dead_after=5)
    done: dict[int, asyncio.Future[None]] = {}

    def on_event(event: HopEvent) -> None:
        if isinstance(event, Acked):
            done[event.msg.seq].set_result(None)

    task = asyncio.create_task(pump(server, on_event, tick_every=lambda: 0.5))
    while server.workers == 0:
        await asyncio.sleep(0.01)
    took = []
    for seq in range(300):
        done[seq] = asyncio.get_running_loop().create_future()
        begin = time.perf_counter()
        server.dispatch(one_pcm("s", seq))
        if seq % 3 == 0:
            server.dispatch(one_pcm("other", 1000 + seq))
            done[1000 + seq] = asyncio.get_running_loop().create_future()
        await asyncio.wait_for(done[seq], 5)
        took.append(time.perf_counter() - begin)
    assert sorted(took)[len(took) // 2] < 0.02
    assert sum(t > 0.1 for t in took) <= 3  # a busy machine may delay a few, a missed edge would many
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.wake is None
    server.close()


async def test_an_error_in_a_handler_does_not_stop_the_pump(
    ctx: Context, endpoint: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = ResultServer(ctx, endpoint)
    client = ResultClient(ctx, endpoint, stage="e", worker="0")
    seen: list[int] = []

    async def on_event(event: tuple[bytes, object]) -> None:
        sender, message = event
        assert isinstance(message, Frame)
        seen.append(message.seq)
        if message.seq == 0:
            raise RuntimeError("one session's trouble")
        server.confirm_clip(sender, message.session, message.epoch, message.seq)

    task = asyncio.create_task(pump(server, on_event))
    confirmed: list[object] = []
    with caplog.at_level(logging.CRITICAL + 1):
        for seq in range(3):
            client.send(one_frame("s", seq))
        for _ in range(300):
            confirmed += client.confirmed()
            if len(confirmed) == 2:
                break
            await asyncio.sleep(0.01)
    assert sorted(seen) == [0, 1, 2] and len(confirmed) == 2
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    server.close()


async def test_an_idle_pump_does_not_spin(ctx: Context, endpoint: str) -> None:
    server = HopServer(ctx, endpoint, sticky=True, dead_after=5)
    calls = 0
    original = server.on_readable

    def counted() -> list[HopEvent]:
        nonlocal calls
        calls += 1
        return original()

    server.on_readable = counted  # type: ignore[method-assign]
    task = asyncio.create_task(pump(server, lambda _: None))
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert calls < 20
    server.close()


async def test_a_flood_leaves_the_loop_alive(ctx: Context, endpoint: str) -> None:
    server = ResultServer(ctx, endpoint)
    stranger = ctx.socket(zmq.DEALER)
    stranger.connect(endpoint)
    task = asyncio.create_task(pump(server, lambda _: None))
    longest, last = 0.0, time.perf_counter()
    for _ in range(60):
        for _ in range(50):
            with contextlib.suppress(zmq.Again):  # its own queue is full
                stranger.send(b"x", zmq.NOBLOCK)
        await asyncio.sleep(0)
        longest, last = max(longest, time.perf_counter() - last), time.perf_counter()
    assert longest < 1.0
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    server.close()


async def test_the_end_of_a_connection_is_told_at_once(ctx: Context, endpoint: str) -> None:
    server = ResultServer(ctx, endpoint)
    ends, stays = (ResultClient(ctx, endpoint, stage="gpu_worker", worker=name) for name in "ab")
    pumped = asyncio.create_task(pump(server, lambda _: None))
    looks, lost = 0, []

    def look() -> None:
        nonlocal looks
        looks += 1
        lost.extend(server.lost_workers(0.0))

    watched = asyncio.create_task(watch_ends(server.socket, look))
    for name, client in (("a", ends), ("b", stays)):
        client.send(Status("gpu_worker", name, True, {}, {}))
    await asyncio.sleep(0.3)
    assert looks == 0  # nothing has ended, so nothing is done
    ends.close()
    for _ in range(200):
        if lost:
            break
        await asyncio.sleep(0.02)
    assert lost == [("gpu_worker", "a")]
    for task in (watched, pumped):
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    stays.close()
    server.close()
