"""Idle life in a whole run whose workers die in the middle of it."""

from __future__ import annotations

import asyncio
import os
import signal
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.run.managed import ManagedRun
from tests.gateway.clients import Client, client_v2
from tests.integration.conftest import processes_with
from tests.integration.test_lifecycle import command_line

pytestmark = [pytest.mark.process, pytest.mark.timing, pytest.mark.long]


@pytest.mark.parametrize("stage", ["audio_worker", "gpu_worker", "encoder_worker"])
async def test_the_face_lives_on_after_a_worker_died(stage: str) -> None:
    with ManagedRun("--passthrough", timeout=300) as run:
        server: Any = SimpleNamespace(
            url=lambda path="/", scheme="http": run.url.replace("http", scheme) + path
        )
        async with client_v2(server, hello={"idle": "life"}) as client:
            await client.until(lambda c: len(c.frames) > 24, 20)
            (victim, *_) = [pid for pid in processes_with(stage) if str(run.port) in command_line(pid)]
            os.kill(victim, signal.SIGKILL)
            await asyncio.sleep(0.5)
            before = frames(client)
            await client.until(lambda c: frames(c) > before + 48, 60)
            assert all(frame.idle for frame in client.frames) and not client.audio


def frames(client: Client) -> int:
    return len(client.frames)
