"""Idle life over real sockets: a client that sends nothing sees the face go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import numpy as np
import pytest

from tests.gateway.clients import Client, client_v1, client_v2, noise
from tests.gateway.conftest import Running, running
from tests.gateway.test_resume import resume_of

pytestmark = pytest.mark.process

LIFE = {"idle": "life"}


@pytest.fixture(scope="module")
def roomy() -> Iterator[Running]:
    with running(max_sessions=4) as run:
        yield run


def idle(client: Client, epoch: int) -> int:
    return sum(frame.idle and frame.epoch == epoch for frame in client.frames)


async def test_the_face_lives_on_through_every_change(roomy: Running) -> None:
    async with client_v2(roomy, hello=LIFE) as client:
        await client.until(lambda c: idle(c, 0) >= 18)
        assert not client.audio
        words = noise(1.0, 1)
        await client.speak(words)
        await client.until(lambda c: len(c.heard) == len(words))
        assert np.array_equal(client.heard, words)
        await client.until(lambda c: c.frames[-1].idle)
        await client.ws.send('{"type":"interrupt"}')
        await client.until(lambda c: idle(c, 1) >= 6)
        assert client.text("interrupted")["position"] == len(words)
        await client.ws.send(json.dumps({"type": "options", "pose": "talk"}))
        await client.until(lambda c: idle(c, 2) >= 6)
        assert client.text("ready")["pose"] == "talk"
        places = [(f.epoch, f.seq, f.index) for f in client.frames]
        assert places == sorted(places) and len(set(places)) == len(places)
        kinds = [t["type"] for t in client.texts if t["type"].startswith("speech") or t["type"] == "idle"]
        assert kinds[:2] == ["speech_started", "speech_ended"]


async def test_it_goes_on_at_another_connection(roomy: Running) -> None:
    async with client_v2(roomy, hello=LIFE) as one:
        await one.until(lambda c: idle(c, 0) >= 6)
        resume = resume_of(one)
        one.ws.transport.abort()
    async with client_v2(roomy, hello=LIFE | {"resume": resume}) as two:
        await two.until(lambda c: idle(c, 0) >= 12)
        assert two.text("ready")["resumed"]
        seen = (resume["seen_seq"], resume["seen_index"])
        assert min((f.seq, f.index) for f in two.frames) > seen
        assert two.text("ready")["position"] == 0


async def test_nobody_else_gets_it(roomy: Running) -> None:
    before = len(roomy.stages.audio.received)
    async with (
        client_v2(roomy) as two,
        client_v2(roomy, hello={"idle": "still"}) as three,
        client_v1(roomy) as one,
    ):
        await asyncio.sleep(1.2)
        assert not (one.frames or two.frames or three.frames)
    assert len(roomy.stages.audio.received) == before
    async with client_v2(roomy, hello={"idle": "dance"}) as four:
        code, reason = await four.closed()
        assert code == 1008 and reason.startswith("bad_option")


async def test_a_stage_that_comes_back_brings_it_back(roomy: Running) -> None:
    """Nothing is asked for in between."""
    async with client_v2(roomy, hello=LIFE) as client:
        await client.until(lambda c: idle(c, 0) >= 6)
        roomy.stages.behaviour.delay = 3.0  # the clip under way is late, and no other is asked for
        await asyncio.sleep(0.7)
        asked = len(roomy.stages.audio.received)
        await asyncio.sleep(1.0)
        assert len(roomy.stages.audio.received) - asked <= 1
        roomy.stages.behaviour.delay = 0.0
        count = idle(client, 0)
        await client.until(lambda c: idle(c, 0) >= count + 20, 10)
