"""The needs of voice agents: interrupting, events of speech, int16, minutes of speech at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import numpy as np
import pytest

from scripts.fake_stages.workers import FakeBehaviour
from tests.gateway.clients import Client, client_v1, client_v2, noise
from tests.gateway.conftest import Running, running

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def roomy() -> Iterator[Running]:
    with running(max_sessions=4, idle_flush=1.0) as run:
        yield run


@pytest.fixture(autouse=True)
def as_made(roomy: Running) -> None:
    roomy.stages.behaviour = FakeBehaviour()


def kinds(client: Client) -> list[str]:
    return [text["type"] for text in client.texts if text["type"] not in ("ready", "status", "credit")]


@pytest.mark.timing
async def test_an_interrupt_drops_everything_and_new_speech_follows(roomy: Running) -> None:
    """Twenty times in one session: 20 s of speech are waiting each time."""
    waits, late = [], []
    async with client_v2(roomy) as client:
        for trial in range(20):
            sound = noise(20.0, trial)
            await client.speak(sound, pace=0, chunk=1.0)
            await client.until(lambda c, n=trial: any(f.epoch == n for f in c.frames))
            await asyncio.sleep(0.03 * (trial % 7))
            asked = asyncio.get_running_loop().time()
            await client.ws.send('{"type":"interrupt"}')
            await client.until(lambda c, n=trial: kinds(c).count("interrupted") == n + 1)
            waits.append(asyncio.get_running_loop().time() - asked)
            answer = client.text("interrupted")
            assert answer["epoch"] == trial + 1
            assert answer["position"] == 20 * 16000 * (trial + 1)
            assert answer["pts"] is None or answer["pts"] >= 0
            old = [
                at
                for (at, kind), f in zip(frame_times(client), client.frames, strict=True)
                if f.epoch <= trial
            ]
            late.append(max(old) - asked)
        fresh = noise(1.0, 99)
        await client.speak(fresh)
        await client.until(lambda c: sum(f.epoch == 20 for f in c.frames) == 24)
        heard = np.concatenate([m.samples for m in client.audio if m.epoch == 20])
        assert np.array_equal(heard, fresh)
    print(f"answer after {np.median(waits) * 1000:.0f} ms (median), {max(waits) * 1000:.0f} ms (most)")
    print(f"last old frame {max(late) * 1000:.0f} ms after the interrupt")
    assert np.median(waits) < 0.2 and np.median(late) < 0.2


def frame_times(client: Client) -> list[tuple[float, str]]:
    return [entry for entry in client.times if entry[1] == "frame"]


async def test_the_avatar_says_when_it_speaks_and_when_it_is_idle(roomy: Running) -> None:
    async with client_v2(roomy) as client:
        await client.speak(noise(1.2))
        await client.ws.send('{"type":"flush"}')
        await client.until(lambda c: kinds(c) == ["speech_started", "speech_ended", "idle"], 10)
        started, ended = client.text("speech_started"), client.text("speech_ended")
        assert (started["pts"], ended["pts"]) == (0, 19200)
        await client.speak(noise(0.5))
        await client.until(lambda c: kinds(c).count("speech_started") == 2)
        # a pause ends with the clip, so the next word begins at the next one
        assert client.text("speech_started")["pts"] == 24000


async def test_int16_comes_back_as_it_was_sent(roomy: Running) -> None:
    sent = np.random.default_rng(3).integers(-32768, 32768, 16000).astype("<i2")
    async with client_v2(roomy, hello={"pcm": "s16"}) as client:
        assert client.text("ready")["pcm"] == "s16"
        for start in range(0, 16000, 800):
            await client.ws.send(sent[start : start + 800].tobytes())
        await client.until(lambda c: len(c.heard) == 16000)
        assert np.array_equal(np.rint(client.heard * 32768).astype("<i2"), sent)
        await client.ws.send(b"odd")
        code, reason = await client.closed()
        assert code == 1007 and reason.startswith("bad_audio")


async def test_thirty_seconds_at_once_are_taken_and_credit_is_told(roomy: Running) -> None:
    sound = noise(30.0, 4)
    async with client_v2(roomy) as client:
        ready = client.text("ready")
        assert ready["credit"] == 120 * 16000
        await client.speak(sound, pace=0, chunk=2.0)
        await client.until(lambda c: any(text["type"] == "credit" for text in c.texts), 12)
        assert client.text("credit")["until"] > ready["credit"] + 5 * 16000
        await client.until(lambda c: len(c.frames) >= 48)
        assert np.array_equal(client.heard, sound[: len(client.heard)])


async def test_more_than_the_credit_is_too_fast(roomy: Running) -> None:
    async with client_v2(roomy) as client:
        for _ in range(9):
            await client.ws.send(np.zeros(15 * 16000, "<f4").tobytes())
        code, reason = await client.closed()
        assert code == 1008 and reason.startswith("too_fast")


async def test_texts_of_a_later_version_are_ignored(roomy: Running) -> None:
    async with client_v2(roomy) as client:
        await client.ws.send(json.dumps({"type": "dance", "steps": [1, 2]}))
        await client.speak(noise(0.5))
        await client.until(lambda c: len(c.frames) == 12)


@pytest.mark.parametrize("fps", [8, 12, 24])
async def test_version_1_gets_24_frames_for_each_second_whatever_is_made(roomy: Running, fps: int) -> None:
    roomy.stages.behaviour = FakeBehaviour(fps=fps)
    await asyncio.sleep(1.2)  # the gateway has heard of it
    async with client_v1(roomy) as client:
        await client.speak(noise(2.0))
        await client.until(lambda c: len(c.frames) == 48)
        times = np.array([at for at, _ in frame_times(client)])
        # the sound of a second and its 24 frames take a second, without jumps
        assert np.median(np.diff(times)) == pytest.approx(1 / 24, abs=0.02)
        pictures = [frame.data for frame in client.frames]
        made = [jpeg for jpeg, before in zip(pictures, [b"", *pictures], strict=False) if jpeg != before]
        assert len(made) <= 2 * fps
    async with client_v1(roomy, f"?fps={fps}") as client:
        await client.speak(noise(1.0))
        await client.until(lambda c: len(c.audio) == 2)
        await asyncio.sleep(1.0)
        assert len(client.frames) == fps
