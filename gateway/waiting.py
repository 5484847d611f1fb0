"""Waiting for events, tasks and clients in the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed


async def cancel_tasks(tasks: Sequence[asyncio.Future[None]]) -> None:
    """Cancel the tasks and wait until they have ended, whatever their result."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def wait_for_event(event: asyncio.Event, timeout: float) -> None:
    """Return when the event is set or the time is over. Clears the event."""
    if timeout > 0 and not event.is_set():
        loop = asyncio.get_running_loop()
        timer = loop.call_later(timeout, event.set)
        try:
            await event.wait()
        finally:
            timer.cancel()
    else:
        await asyncio.sleep(0)
    event.clear()


async def read_and_drop(ws: ServerConnection) -> None:
    """Read what a client still sends, until it is gone."""
    async for _ in ws:
        pass


async def at_most(seconds: float, work: Awaitable[object]) -> None:
    """Wait for `work`, but not longer than this. A closed connection is no error."""
    try:
        await asyncio.wait_for(work, seconds)
    except (asyncio.TimeoutError, ConnectionClosed):
        pass
