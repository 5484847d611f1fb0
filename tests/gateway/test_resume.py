"""A client that loses its connection, or whose gateway is killed, goes on in its session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tests.gateway.clients import Client, client_v2, noise
from tests.gateway.conftest import Running, running

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def roomy() -> Iterator[Running]:
    with running(max_sessions=2, idle_flush=1.0) as run:
        yield run


def resume_of(client: Client) -> dict[str, Any]:
    """The words of a client that comes back."""
    ready = client.text("ready")
    sounds = [m for m in client.audio if m.epoch == ready["epoch"]]
    frames = [f for f in client.frames if f.epoch == ready["epoch"]]
    return {
        "token": ready["resume"],
        "epoch": ready["epoch"],
        "heard": sounds[-1].seq if sounds else -1,
        "seen_seq": frames[-1].seq if frames else -1,
        "seen_index": frames[-1].index if frames else -1,
        "position": client.audio[-1].position + len(client.audio[-1].samples) if client.audio else 0,
    }


async def ready_of(client: Client) -> dict[str, Any]:
    await client.until(lambda c: any(text["type"] == "ready" for text in c.texts))
    return client.text("ready")


async def break_off(client: Client) -> None:
    """The connection is gone without a goodbye."""
    client.ws.transport.abort()
    await client.ws.wait_closed()


async def test_a_lost_connection_goes_on_with_everything(roomy: Running) -> None:
    sound = noise(4.0, 7)
    async with client_v2(roomy) as one:
        first = await ready_of(one)
        await one.speak(sound[:25_000])
        await one.until(lambda c: len(c.frames) >= 24)
        resume = resume_of(one)
        await break_off(one)
    await asyncio.sleep(0.7)
    async with client_v2(roomy, hello={"resume": resume}) as two:
        ready = await ready_of(two)
        assert ready["resumed"] and ready["session"] == first["session"]
        assert ready["epoch"] == 0
        # everything that was sent has come: nothing is to be sent again
        assert ready["position"] == 25_000
        await two.speak(sound[ready["position"] :])
        await two.until(lambda c: len(one.heard) + len(c.heard) == len(sound))
        await two.until(lambda c: c.frames[-1].seq == 7 and c.frames[-1].index == 11)
        assert np.array_equal(np.concatenate([one.heard, two.heard]), sound)
        places = [(f.seq, f.index) for f in [*one.frames, *two.frames]]
        assert places == [(clip, index) for clip in range(8) for index in range(12)]


async def test_messages_that_were_lost_on_the_way_come_again(roomy: Running) -> None:
    """The client says that it has less than the gateway sent."""
    sound = noise(1.0, 8)
    async with client_v2(roomy, acks=False) as one:
        await ready_of(one)
        await one.speak(sound)
        await one.until(lambda c: len(c.frames) == 24)
        resume = resume_of(one) | {"heard": 0, "seen_seq": 0, "seen_index": 4}
        await break_off(one)
    async with client_v2(roomy, hello={"resume": resume}) as two:
        await two.until(lambda c: len(c.frames) == 24 - 5)
        assert [m.seq for m in two.audio] == [1]
        assert [(f.seq, f.index) for f in two.frames][:2] == [(0, 5), (0, 6)]
        assert two.frames[-1].seq == 1 and two.frames[-1].index == 11


async def test_a_client_that_shows_nothing_is_cut_and_may_come_back(roomy: Running) -> None:
    """A network that stands still looks the same."""
    sound = noise(8.0, 11)
    async with client_v2(roomy, acks=False) as one:
        first = await ready_of(one)
        speaking = asyncio.create_task(one.speak(sound))
        code, reason = await one.closed()
        assert code == 1008 and reason.startswith("slow_client")
        assert len(one.frames) == 24
        resume = resume_of(one)
        speaking.cancel()
    await asyncio.sleep(1.0)
    async with client_v2(roomy, hello={"resume": resume}) as two:
        ready = await ready_of(two)
        assert ready["resumed"] and ready["session"] == first["session"] and ready["epoch"] == 0
        await two.speak(sound[ready["position"] : ready["position"] + 16_000])
        await two.until(lambda c: c.audio and c.audio[-1].position >= ready["position"])


async def test_a_session_goes_on_at_a_new_gateway(roomy: Running) -> None:
    with running(idle_flush=1.0) as run:
        sound = noise(3.0, 9)
        async with client_v2(run, hello={"avatar": "bruno"}) as one:
            first = await ready_of(one)
            await one.speak(sound[:22_000])
            await one.until(lambda c: len(c.audio) == 2)
            resume = resume_of(one)
            run.kill()
        run.start()
        run.wait_ready()
        async with client_v2(run, hello={"avatar": "bruno", "resume": resume}) as two:
            ready = await ready_of(two)
            assert ready["resumed"] and ready["session"] == first["session"]
            assert (ready["epoch"], ready["avatar"]) == (1, "bruno")
            assert ready["position"] == resume["position"] == len(one.heard)
            await two.speak(sound[ready["position"] :])
            await two.until(lambda c: len(c.heard) == len(sound) - len(one.heard))
            assert np.array_equal(np.concatenate([one.heard, two.heard]), sound)
            assert two.audio[0].position == len(one.heard)


async def test_a_token_that_is_not_this_runs_begins_a_new_session(roomy: Running) -> None:
    async with client_v2(roomy) as one:
        resume = resume_of_ready(await ready_of(one))
        for token in ("", "x", resume["token"][:-6] + "AAAAAA", resume["token"] * 9):
            async with client_v2(roomy, hello={"resume": resume | {"token": token}}) as two:
                ready = await ready_of(two)
                assert not ready["resumed"] and ready["session"] != one.text("ready")["session"]


def resume_of_ready(ready: dict[str, Any]) -> dict[str, Any]:
    return {
        "token": ready["resume"], "epoch": 0, "heard": -1, "seen_seq": -1, "seen_index": -1, "position": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [{"token": 7}, {"epoch": -1}, {"heard": "x"}, {"seen_seq": None}, {"position": 1.5}, {"position": 2**60}],
)
async def test_a_wrong_field_is_told(roomy: Running, wrong: dict[str, Any]) -> None:
    resume = {"token": "t", "epoch": 0, "heard": -1, "seen_seq": -1, "seen_index": -1, "position": 0} | wrong
    async with client_v2(roomy, hello={"resume": resume}) as client:
        code, reason = await client.closed()
        assert code == 1007 and reason.startswith("bad_message")


async def test_a_client_that_says_goodbye_leaves_nothing(roomy: Running) -> None:
    async with client_v2(roomy) as one:
        ready = await ready_of(one)
    async with client_v2(roomy, hello={"resume": resume_of_ready(ready)}) as two:
        again = await ready_of(two)
        # the token is good and so the name stays, but the session is a new one
        assert again["session"] == ready["session"] and again["epoch"] == 1


async def test_those_who_are_gone_give_their_places_to_one_who_is_there(roomy: Running) -> None:
    for _ in range(4):
        async with client_v2(roomy) as client:
            await ready_of(client)
            await break_off(client)
    await asyncio.sleep(0.2)
    assert roomy.metric("echomimic_sessions") == 2
    async with client_v2(roomy) as one, client_v2(roomy) as two:
        await ready_of(one)
        await ready_of(two)


async def test_a_second_connection_takes_a_session_over(roomy: Running) -> None:
    """The first one may be a network that is gone and that nobody has noticed."""
    async with client_v2(roomy) as one:
        ready = await ready_of(one)
        async with client_v2(roomy, hello={"resume": resume_of_ready(ready)}) as two:
            again = await ready_of(two)
            assert again["session"] == ready["session"] and again["resumed"]
            code, reason = await one.closed()
            assert code == 1008 and reason.startswith("moved")
            await two.speak(noise(0.5))
            await two.until(lambda c: len(c.frames) == 12)
            assert json.loads(json.dumps(two.text("ready")))["position"] == 0


async def test_clients_that_say_nothing_give_their_places_to_one_who_comes() -> None:
    with running(max_sessions=2) as run:
        async with client_v2(run) as quiet, client_v2(run) as talker:
            await ready_of(quiet)
            await ready_of(talker)
            speaking = asyncio.create_task(talker.speak(noise(14.0)))
            async with client_v2(run) as early:
                code, reason = await early.closed()
                assert code == 1013 and reason.startswith("busy")
            await asyncio.sleep(10.5)
            async with client_v2(run) as late:
                assert (await ready_of(late))["epoch"] == 0
                code, reason = await quiet.closed()
                assert code == 1013 and reason.startswith("idle")
            await speaking
            assert talker.ws.close_code is None
