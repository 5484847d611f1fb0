"""Runs a hop's or the results' server side inside an asyncio loop."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

import zmq

logger = logging.getLogger(__name__)

E = TypeVar("E")

#: Anything that wakes the pump within this many seconds before a tick is due brings the tick forward. So both
#: need one wake-up. Workers send their heartbeats a little more often than a tick is due.
EARLY = 0.02
#: Seconds between the further calls after a connection's end.
AFTER_END = (0.05, 0.25)


class Pumped(Protocol[E]):
    """A server that `pump` can run: HopServer or ResultServer."""

    socket: zmq.Socket[bytes]
    #: Is called after each send, which may have hidden that the socket is readable.
    wake: Callable[[], None] | None

    def on_readable(self) -> list[E]: ...
    def tick(self, *, readable: bool = True) -> list[E]: ...


async def pump(
    server: Pumped[E],
    on_event: Callable[[E], Awaitable[None] | None],
    *,
    tick_every: Callable[[], float] = lambda: 0.1,
    after_tick: Callable[[], None] = lambda: None,
) -> None:
    """Run `server` and hand its events, in order, to `on_event` (plain or async), until cancelled.

    The FD of a ZeroMQ socket is edge-triggered. It says that something changed, and any send or receive may
    take that notice away. So the socket is asked for its state before every wait, and the server wakes the
    pump after each of its own sends, such as those of `HopServer.dispatch`. An error of `on_event` is logged
    and the pump goes on, so that one session's trouble does not reach the others.

    Args:
        server: to run.
        on_event: takes its events.
        tick_every: most seconds from one call of `server.tick` to the next, asked for after each call.
        after_tick: is called after each of them.
    """
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()
    fd: Any = server.socket.getsockopt(zmq.FD)
    server.wake = changed.set
    loop.add_reader(fd, changed.set)
    next_tick = loop.time()
    # wait_for would do, but before Python 3.12 it can swallow a cancellation
    alarm = loop.call_at(next_tick, changed.set)
    try:
        while True:
            changed.clear()
            readable = bool(int(server.socket.getsockopt(zmq.EVENTS)) & zmq.POLLIN)
            due = loop.time() >= next_tick - EARLY
            if not (readable or due):
                await changed.wait()
                continue
            events = server.tick(readable=readable) if due else server.on_readable()
            for event in events:
                await _handle(on_event, event)
            if due:
                alarm.cancel()
                next_tick = loop.time() + tick_every()
                alarm = loop.call_at(next_tick, changed.set)
                after_tick()
            if readable:
                await asyncio.sleep(0)  # other tasks have their turn between two batches
    finally:
        alarm.cancel()
        server.wake = None
        loop.remove_reader(fd)


async def watch_ends(socket: zmq.Socket[bytes], on_end: Callable[[], None]) -> None:
    """Call `on_end` each time that connections of a socket have ended, until cancelled.

    It costs nothing while none ends. The socket itself learns of an end a moment later, so `on_end` is called
    at once and `AFTER_END` seconds later again.
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    fd: Any = monitor.getsockopt(zmq.FD)
    loop.add_reader(fd, ended.set)
    try:
        while True:
            ended.clear()
            if _drain(monitor):
                for seconds in (0.0, *AFTER_END):
                    await asyncio.sleep(seconds)
                    on_end()
                continue
            await ended.wait()
    finally:
        loop.remove_reader(fd)
        socket.disable_monitor()


def _drain(monitor: zmq.Socket[bytes]) -> int:
    """Read all events of a monitor. Returns how many there were."""
    count = 0
    while int(monitor.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
        monitor.recv_multipart()
        count += 1
    return count


async def _handle(on_event: Callable[[E], Awaitable[None] | None], event: E) -> None:
    try:
        result = on_event(event)
        if inspect.isawaitable(result):
            await result
    except Exception:
        logger.exception("an event could not be handled: %s", event)
