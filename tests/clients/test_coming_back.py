"""A lost connection or a new gateway: each picture is handed out once, and each sample is spoken once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import numpy as np
import pytest

from echomimic_live_client import Frame, Session, Sound, connect
from echomimic_live_client.errors import ConnectionLost, SessionEnded
from protocol.hop.endpoints import RESUME_KEY_FILE
from tests.clients.relay import Relay, relay_to
from tests.gateway.clients import noise
from tests.gateway.conftest import Running, running

# On a machine that stands still for a second, the gateway leaves pictures out.
pytestmark = [pytest.mark.process, pytest.mark.timing]


@pytest.fixture(scope="module")
def mortal() -> Iterator[Running]:
    """A gateway that may be killed."""
    with running(max_sessions=2, idle_flush=1.0) as run:
        yield run


class Taker:
    """Takes everything that a session gives."""

    def __init__(self, face: Session) -> None:
        self.frames: list[Frame] = []
        self.sounds: list[Sound] = []
        self._face = face
        self.task = asyncio.create_task(self._take())

    async def _take(self) -> None:
        async for item in self._face.media():
            (self.frames if isinstance(item, Frame) else self.sounds).append(item)  # type: ignore[arg-type]

    @property
    def heard(self) -> np.ndarray:
        return np.concatenate([np.empty(0, np.float32), *(sound.samples for sound in self.sounds)])

    async def until(self, sounds: int) -> None:
        while len(self.sounds) < sounds:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def talk(url: str, speech: np.ndarray) -> AsyncIterator[tuple[Session, Taker]]:
    """A session in which a microphone speaks for as long as the speech goes."""

    async def speak(face: Session) -> None:
        for place in range(0, len(speech), 800):
            face.push(speech[place : place + 800])
            await asyncio.sleep(0.05)
        face.finish()

    async with connect(url) as face:
        speaking, taker = asyncio.create_task(speak(face)), Taker(face)
        yield face, taker
        await asyncio.wait_for(asyncio.gather(speaking, taker.task), 20)


def assert_in_order(taker: Taker, speech: np.ndarray) -> None:
    assert np.array_equal(taker.heard, speech)
    times = [frame.time for frame in taker.frames]
    assert times == sorted(set(times))
    places = [frame.position for frame in taker.frames]
    assert places == sorted(places)


@pytest.fixture
async def relay(mortal: Running) -> AsyncIterator[Relay]:
    async with relay_to(mortal.settings.port) as relay:
        yield relay


async def test_connections_that_break_off_lose_nothing(relay: Relay) -> None:
    speech = noise(3.2, 5)
    async with talk(relay.url, speech) as (face, taker):
        for sounds in (1, 3, 4):
            await taker.until(sounds)
            relay.cut()
    assert face.reconnects == 3
    assert_in_order(taker, speech)
    places = [(f.epoch, f.seq, f.index) for f in taker.frames]
    assert places == [(0, clip, index) for clip in range(7) for index in range(12)]


async def test_a_new_gateway_goes_on_with_the_session(mortal: Running) -> None:
    speech = noise(2.6, 6)
    async with talk(mortal.url(), speech) as (face, taker):
        name = face.ready.session
        await taker.until(2)
        mortal.kill()
        mortal.start()
    assert face.reconnects == 1 and face.ready.session == name and face.ready.epoch == 1
    assert_in_order(taker, speech)


async def test_a_gateway_that_knows_nothing_of_the_session_begins_another(mortal: Running) -> None:
    speech = noise(2.6, 7)
    async with talk(mortal.url(), speech) as (face, taker):
        name = face.ready.session
        await taker.until(2)
        mortal.kill()
        (mortal.settings.run_dir / RESUME_KEY_FILE).unlink()
        mortal.start()
    assert face.reconnects == 1 and face.ready.session != name and not face.ready.resumed
    assert_in_order(taker, speech)


async def test_a_server_that_stays_away_is_given_up(relay: Relay) -> None:
    async with connect(relay.url, retry_for=1.0) as face:
        relay.closed = True
        relay.cut()
        begin = asyncio.get_running_loop().time()
        with pytest.raises(ConnectionLost):
            await anext(face.frames())
        assert asyncio.get_running_loop().time() - begin < 3
        with pytest.raises(ConnectionLost):
            face.push(noise(0.1))


async def test_an_interruption_outlives_its_connection(relay: Relay) -> None:
    async with connect(relay.url) as face:
        face.push(noise(4.0, 8))
        await anext(face.frames())
        relay.cut()
        answer = asyncio.create_task(face.interrupt())
        await asyncio.sleep(0)
        later = noise(1.0, 9)
        face.push(later)
        face.finish()
        assert (await answer).epoch == 1 and face.reconnects == 1
        items = [item async for item in face.media()]
    sounds = [item for item in items if isinstance(item, Sound)]
    assert np.array_equal(np.concatenate([sound.samples for sound in sounds]), later)
    assert len(items) - len(sounds) == 24 and {item.epoch for item in items} == {1}


@pytest.mark.long
@pytest.mark.slow
async def test_a_program_that_stood_still_goes_on(mortal: Running) -> None:
    """The server ends the connection of a client that takes nothing for 5 s. One that never does is told."""
    async with connect(mortal.url()) as face:
        face.push(noise(9.0, 9))
        first = await anext(face.frames())
        await asyncio.sleep(6.5)
        face.finish()
        frames = [frame async for frame in face.frames()]
        assert face.reconnects == 1 and frames[-1].position >= 143_000
        places = [(frame.epoch, frame.seq, frame.index) for frame in (first, *frames)]
        assert places == sorted(set(places))
    async with connect(mortal.url()) as face:
        face.push(noise(8.0, 9))
        await asyncio.sleep(6.5)
        with pytest.raises(SessionEnded, match="slow_client"):
            face.push(noise(0.1))
