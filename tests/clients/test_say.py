"""Texts spoken by a real engine, through a real gateway and voice worker, with the Python client."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from echomimic_live_client import ClientError, Frame, Session, Sound, connect
from tests.clients.node_programs import HAS_SOCKET, installed, run_node
from tests.clients.relay import relay_to
from tests.gateway.clients import noise
from tests.gateway.conftest import Running, running
from tests.helpers.voice import needs_espeak, start_voice_worker, voice_worker

pytestmark = [pytest.mark.process, pytest.mark.timing]

#: Half a minute.
LONG = " ".join(f"This is sentence number {number} of a long answer." for number in range(1, 13))
#: Twelve seconds.
FIVE = " ".join(LONG.split(". ")[:5])


@pytest.fixture(scope="module")
def speaking() -> Iterator[Running]:
    with running(max_sessions=4, voice_engine="espeak-ng") as run, voice_worker(run.settings):
        yield run


async def take(face: Session, items: list[Frame | Sound]) -> None:
    async for item in face.media():
        items.append(item)


def heard(items: list[Frame | Sound], said: bool) -> np.ndarray:
    sounds = [item for item in items if isinstance(item, Sound) and item.said == said]
    return np.concatenate([np.empty(0, np.float32), *(sound.samples for sound in sounds)])


@needs_espeak
async def test_a_text_between_sounds_takes_its_turn(speaking: Running) -> None:
    before, after = noise(0.8, 1), noise(0.7, 2)
    items: list[Frame | Sound] = []
    texts: list[dict[str, Any]] = []
    async with connect(speaking.url(), on_text=texts.append) as face:
        assert face.ready.fields["voice_engine"] == "espeak-ng"
        face.push(before)
        say = face.say("Hello there. How are you?")
        face.push(after)
        face.finish()
        await asyncio.wait_for(take(face, items), 20)
        assert await say == "spoken"
    assert np.array_equal(heard(items, said=False), np.concatenate([before, after]))
    speech = heard(items, said=True)
    assert 1.0 < len(speech) / 16000 < 4.0 and np.abs(speech).max() > 0.1
    # no clip has sound of both, and the turns are in order
    order = [item.said for item in items if isinstance(item, Sound)]
    assert order == sorted(order[: order.index(True)]) + [True] * order.count(True) + [False] * (
        len(order) - order.index(True) - order.count(True)
    )
    told = [text["type"] for text in texts if text["type"].startswith("say_")]
    assert told == ["say_started", "say_ended"]
    first = next(item for item in items if isinstance(item, Sound) and item.said)
    assert say.started_pts == first.pts
    assert say.ended_pts is not None and say.started_pts is not None
    assert say.ended_pts - say.started_pts == pytest.approx(len(speech), abs=8000)


@needs_espeak
async def test_a_long_text_begins_early_and_an_interrupt_ends_it(speaking: Running) -> None:
    items: list[Frame | Sound] = []
    async with connect(speaking.url()) as face:
        taking = asyncio.create_task(take(face, items))
        await asyncio.wait_for(wait_ended(face.say("Ready.")), 10)
        count = len(items)
        began = time.monotonic()
        says = [face.say(LONG), face.say("And another one.")]
        while not any(isinstance(item, Frame) for item in items[count:]):
            await asyncio.sleep(0.005)
        first = time.monotonic() - began
        await asyncio.sleep(0.5)
        await face.interrupt()
        assert [await say for say in says] == ["interrupted"] * 2
        later = face.say("New words.", voice="de")
        assert await asyncio.wait_for(wait_ended(later), 10) == "spoken"
        taking.cancel()
    print(f"first picture {first * 1000:.0f} ms after the text")
    assert first < 2.0


async def wait_ended(say: Any) -> str:
    outcome: str = await say
    return outcome


@needs_espeak
async def test_a_voice_that_there_is_not_fails_and_the_session_goes_on(speaking: Running) -> None:
    async with connect(speaking.url()) as face:
        say = face.say("Hello.", voice="klingon9")
        assert await asyncio.wait_for(wait_ended(say), 10) == "failed"
        assert "espeak-ng" in say.message
        assert await asyncio.wait_for(wait_ended(face.say("Hello.")), 10) == "spoken"


@needs_espeak
@pytest.mark.long
async def test_a_worker_that_is_killed_is_replaced_and_nothing_is_said_twice() -> None:
    with running(max_sessions=2, voice_engine="espeak-ng") as run:
        first = start_voice_worker(run.settings)
        items: list[Frame | Sound] = []
        async with connect(run.url()) as face:
            taking = asyncio.create_task(take(face, items))
            whole = face.say(FIVE)
            while len(heard(items, said=True)) < 16000:
                await asyncio.sleep(0.02)
            first.send_signal(signal.SIGKILL)
            first.communicate()
            with voice_worker(run.settings):
                face.finish()
                await asyncio.wait_for(taking, 90)
        assert await whole == "spoken"
        with voice_worker(run.settings):
            alone = await spoken_alone(run)
    assert np.array_equal(heard(items, said=True), alone)


async def spoken_alone(run: Running) -> np.ndarray:
    items: list[Frame | Sound] = []
    async with connect(run.url(), frames=False) as face:
        face.say(FIVE)
        face.finish()
        await asyncio.wait_for(take(face, items), 90)
    return heard(items, said=True)


async def test_without_an_engine_a_client_is_told_at_once() -> None:
    with running(max_sessions=2, voice_engine="none") as run:
        async with connect(run.url()) as face:
            with pytest.raises(ClientError, match="no speech engine"):
                face.say("Hello.")


JS_PROGRAM = """
import { connect } from "echomimic-live-client";
const face = await connect(process.argv[2]);
const say = face.say("Hello from JavaScript.");
face.finish();
let pictures = 0;
for await (const frame of face.frames()) pictures += frame.jpeg.length > 0;
console.log((await say).outcome, pictures, face.secondsUnanswered);
face.close();
"""


@needs_espeak
@pytest.mark.skipif(not HAS_SOCKET, reason="needs Node.js 20.10 (a websocket of its own)")
def test_a_program_in_javascript_speaks_a_text(speaking: Running, tmp_path: Path) -> None:
    (line,) = run_node(installed(tmp_path), JS_PROGRAM, speaking.url())
    outcome, pictures, unanswered = line.split()
    assert outcome == "spoken" and 24 <= int(pictures) <= 84 and unanswered == "0"


@needs_espeak
async def test_a_text_goes_on_over_a_lost_connection_and_is_said_once(speaking: Running) -> None:
    items: list[Frame | Sound] = []
    async with relay_to(speaking.settings.port) as relay, connect(relay.url) as face:
        taking = asyncio.create_task(take(face, items))
        say = face.say("One two three four five six seven.")
        while not heard(items, said=True).any():
            await asyncio.sleep(0.01)
        relay.cut()
        face.finish()
        await asyncio.wait_for(taking, 20)
        assert await say == "spoken" and face.reconnects == 1
    sounds = [item for item in items if isinstance(item, Sound)]
    assert [sound.seq for sound in sounds] == list(range(len(sounds)))


@needs_espeak
async def test_a_text_that_a_killed_gateway_never_began_is_sent_again() -> None:
    with running(max_sessions=2, voice_engine="espeak-ng") as run:
        items: list[Frame | Sound] = []
        async with connect(run.url()) as face:
            taking = asyncio.create_task(take(face, items))
            say = face.say("Hello again.")  # there is no voice worker yet
            await asyncio.sleep(0.3)
            run.kill()
            run.start()
            run.wait_ready()
            with voice_worker(run.settings):
                face.finish()
                await asyncio.wait_for(taking, 20)
                assert await say == "spoken"
        assert len(heard(items, said=True)) > 8000


JS_WAITS = """
import { connect } from "echomimic-live-client";
const face = await connect(process.argv[2]);
const say = face.say("Hello again.");
console.log((await say).outcome, face.reconnects);
face.close();
"""


@needs_espeak
@pytest.mark.long
@pytest.mark.skipif(not HAS_SOCKET, reason="needs Node.js 20.10 (a websocket of its own)")
async def test_a_text_of_javascript_that_a_killed_gateway_never_began_is_sent_again(tmp_path: Path) -> None:
    with running(max_sessions=2, voice_engine="espeak-ng") as run:
        told = asyncio.create_task(asyncio.to_thread(run_node, installed(tmp_path), JS_WAITS, run.url()))
        while "begins: version 2" not in run.log():
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # there is no voice worker yet
        run.kill()
        run.start()
        run.wait_ready()
        with voice_worker(run.settings):
            assert await asyncio.wait_for(told, 20) == ["spoken 1"]
