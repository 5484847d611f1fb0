"""Events of the gateway: sessions that come, speak a moment, see a picture and go. Stand-ins answer it."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import psutil
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from protocol.wire.browser import SUBPROTOCOL_V2
from protocol.wire.clock import SAMPLE_RATE
from scripts.run.managed import ROOT, free_port

#: Sessions at a time.
AT_ONCE = 4
#: Samples that each speaks.
SPOKEN = SAMPLE_RATE // 2
#: Most messages before its first picture, and seconds for each.
MOST_MESSAGES, PATIENCE = 50, 5.0


@contextlib.contextmanager
def gateway_process() -> Iterator[tuple[str, psutil.Process]]:
    """A gateway between stand-ins: its websocket's address, and its process."""
    port = free_port()
    command = [sys.executable, "-m", "scripts.fake_stages", "--port", str(port), "--size", "64"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as run:
        try:
            assert run.stdout is not None
            if not any(line.startswith("ready:") for line in run.stdout):
                raise RuntimeError("the gateway did not start")
            yield f"ws://127.0.0.1:{port}/ws", psutil.Process(run.pid).children()[0]
        finally:
            run.terminate()


async def short_session(address: str) -> bool:
    """One session from its beginning to its end. Returns whether it had a picture."""
    voice = np.random.default_rng(0).normal(0, 0.1, SPOKEN).astype("<f4").tobytes()
    protocols = [Subprotocol(SUBPROTOCOL_V2)]
    with contextlib.suppress(ConnectionClosed, OSError, asyncio.TimeoutError):
        async with connect(address, subprotocols=protocols, compression=None, proxy=None) as ws:
            await ws.send('{"type":"hello"}')
            await ws.send(voice)
            for _ in range(MOST_MESSAGES):
                message = await asyncio.wait_for(ws.recv(), PATIENCE)
                if isinstance(message, bytes) and message[:1] == b"\x01":
                    return True
    return False


async def many_sessions(address: str, count: int) -> int:
    """So many sessions, `AT_ONCE` at a time. Returns those that had a picture."""
    left, served = iter(range(count)), 0

    async def one_after_another() -> None:
        nonlocal served
        for _ in left:
            seen = await short_session(address)
            served += seen

    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))
    return served
