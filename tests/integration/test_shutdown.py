"""TERM, INT and HUP to the launcher: every client is told that the server stops, and nothing is left."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from protocol.wire.browser import SUBPROTOCOL_V2
from scripts.run.managed import ManagedRun

pytestmark = [pytest.mark.process, pytest.mark.slow]

#: Seconds after which something hangs, on any machine.
HANGS = 60


async def close_frames(run: ManagedRun, number: signal.Signals) -> list[tuple[int, str]]:
    """Code and reason that a client of each version is closed with after the signal."""
    url = run.url.replace("http", "ws") + "/ws"
    async with (
        connect(url, proxy=None) as first,
        connect(url, subprotocols=[Subprotocol(SUBPROTOCOL_V2)], proxy=None) as second,
    ):
        await second.send(json.dumps({"type": "hello"}))
        await second.recv()
        run.process.send_signal(number)
        ends = []
        for socket in (first, second):
            try:
                while True:
                    await asyncio.wait_for(socket.recv(), HANGS)
            except ConnectionClosed as closed:
                assert closed.rcvd is not None
                ends.append((closed.rcvd.code, closed.rcvd.reason))
        return ends


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
async def test_a_signal_tells_every_client_and_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    with ManagedRun("--passthrough", "--run-dir", str(tmp_path / "run")) as run:
        began = time.monotonic()
        ends = await close_frames(run, number)
        assert run.process.wait(HANGS) == 0
        # The load of the machine makes both slower alike.
        assert time.monotonic() - began < run.ready_in
    assert [code for code, _ in ends] == [1012, 1012]
    assert all(reason.startswith("shutdown") for _, reason in ends), ends
    assert not (tmp_path / "run").exists()
