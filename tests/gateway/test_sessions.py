"""Sessions through a real gateway process: both versions of the wire, several at once, pauses and losses."""

import asyncio

import numpy as np
import pytest

from tests.gateway.clients import Client, client_v1, client_v2, noise
from tests.gateway.conftest import Running
from tests.helpers.fake_stages import avatar_of

pytestmark = [pytest.mark.process, pytest.mark.timing]


def in_order(client: Client) -> bool:
    places = [(f.epoch, f.seq, f.index) for f in client.frames]
    return places == sorted(set(places))


async def test_version_1_paces_pictures_with_their_sound(gateway: Running) -> None:
    sound = noise(2.3)
    async with client_v1(gateway) as client:
        await client.speak(sound)
        await client.until(lambda c: len(c.frames) == 60)
        assert np.array_equal(client.heard, sound)
        assert [len(m.samples) for m in client.audio] == [8000] * 4 + [4800]
        kinds = [kind for _, kind in client.times]
        assert kinds == (["audio"] + ["frame"] * 12) * 5
        frames = [at for at, kind in client.times if kind == "frame"]
        gaps = np.diff(frames)
        assert np.median(gaps) == pytest.approx(1 / 24, abs=0.01)
        assert frames[47] - frames[0] == pytest.approx(47 / 24, abs=0.2)


async def test_version_1_chooses_by_query(gateway: Running) -> None:
    async with client_v1(gateway, "?avatar=chen&pose=talk") as client:
        await client.speak(noise(0.5), pace=0)
        await client.until(lambda c: len(c.frames) == 12)
        assert {avatar_of(f.data) for f in client.frames} == {"chen"}
        assert gateway.stages.audio.received[-1].pose == "talk"


async def test_version_2_says_what_it_runs_with_and_where_everything_belongs(gateway: Running) -> None:
    sound = noise(1.2, 1)
    async with client_v2(gateway, hello={"avatar": "bruno"}) as client:
        ready = client.text("ready")
        assert (ready["avatar"], ready["pose"], ready["fps"], ready["clip_frames"]) == (
            "bruno",
            "calm",
            24,
            12,
        )
        assert (ready["width"], ready["height"], ready["sample_rate"], ready["epoch"]) == (256, 256, 16000, 0)
        await client.speak(sound)
        await client.until(lambda c: len(c.frames) == 36 and any(t["type"] == "status" for t in c.texts))
        assert in_order(client)
        assert [f.pts for f in client.frames[:3]] == [0, 666, 1333] and client.frames[12].pts == 8000
        assert [(m.pts, m.position) for m in client.audio] == [(0, 0), (8000, 8000), (16000, 16000)]
        assert np.array_equal(client.heard, sound)
        status = client.text("status")
        assert status["frames_late"] == 0 and status["frames_lost"] == 0 and status["latency_ms"]["p50"] < 400


async def test_two_sessions_keep_their_faces_and_voices(gateway: Running) -> None:
    async with client_v2(gateway, hello={"avatar": "ada"}) as one, client_v1(gateway, "?avatar=bruno") as two:
        sounds = noise(2.0, 2), noise(2.0, 3)
        await asyncio.gather(one.speak(sounds[0]), two.speak(sounds[1]))
        for client, sound, avatar in ((one, sounds[0], "ada"), (two, sounds[1], "bruno")):
            await client.until(lambda c: len(c.frames) == 48)
            assert np.array_equal(client.heard, sound)
            assert {avatar_of(f.data) for f in client.frames} == {avatar}


async def test_a_pause_ends_the_clip_and_speech_goes_on_in_the_next(gateway: Running) -> None:
    sound = noise(1.0, 4)
    async with client_v2(gateway) as client:
        await client.speak(sound[:3000], pace=0)
        await client.until(lambda c: len(c.frames) == 12)
        await client.speak(sound[3000:12000], pace=0)
        await client.ws.send('{"type":"flush"}')
        await client.until(lambda c: len(c.frames) == 36)
        assert [(m.pts, m.position, len(m.samples)) for m in client.audio] == [
            (0, 0, 3000),
            (8000, 3000, 8000),
            (16000, 11000, 1000),
        ]
        assert np.array_equal(client.heard, sound[:12000])


async def test_another_sample_rate_is_echoed_as_sent(gateway: Running) -> None:
    sound = noise(1.1, 5, 44100)
    async with client_v2(gateway, hello={"sample_rate": 44100}) as client:
        await client.speak(sound, rate=44100)
        await client.until(lambda c: len(c.frames) == 36)
        assert [len(m.samples) for m in client.audio] == [22050, 22050, 4410]
        assert [(m.pts, m.position) for m in client.audio] == [(0, 0), (8000, 22050), (16000, 44100)]
        assert np.array_equal(client.heard, sound)


async def test_frames_out_of_order_and_doubled_come_out_right(gateway: Running) -> None:
    gateway.does.shuffle = True
    before = gateway.metric("echomimic_duplicates_total")
    async with client_v2(gateway) as client:
        await client.speak(noise(2.0), pace=0)
        await client.until(lambda c: len(c.frames) == 48)
        await asyncio.sleep(0.1)
        assert in_order(client) and len(client.frames) == 48
        assert gateway.metric("echomimic_duplicates_total") == before + 12


async def test_a_failed_clip_is_skipped_and_its_sound_goes_on(gateway: Running) -> None:
    gateway.does.failing_clips = {1}
    sound = noise(1.5, 6)
    async with client_v2(gateway) as client:
        await client.speak(sound)
        await client.until(lambda c: len(c.frames) == 24 and len(c.audio) == 3)
        assert {f.seq for f in client.frames} == {0, 2}
        assert [m.frames_follow for m in client.audio] == [True, False, True]
        assert np.array_equal(client.heard, sound)
        await client.until(lambda c: c.texts and c.text("status")["frames_lost"] == 12)
        assert client.text("status")["lost_because"] == "overload"


async def test_a_fatal_failure_ends_its_session_with_the_reason(gateway: Running) -> None:
    gateway.does.fatal = True
    async with client_v2(gateway) as client:
        await client.speak(noise(0.5), pace=0)
        assert await client.closed() == (1011, "failed: gpu_worker: the model has a fault")
        assert client.text("error")["code"] == "failed"


async def test_new_options_start_a_new_epoch(gateway: Running) -> None:
    async with client_v2(gateway, hello={"avatar": "ada"}) as client:
        await client.speak(noise(0.6), pace=0)
        await client.until(lambda c: len(c.frames) == 12)
        await client.ws.send('{"type":"options","avatar":"chen","fps":12}')
        await client.until(lambda c: c.text("ready")["epoch"] == 1)
        assert (client.text("ready")["fps"], client.text("ready")["clip_frames"]) == (12, 6)
        await client.speak(noise(0.4), pace=0)
        await client.until(lambda c: len(c.frames) == 18)
        later = client.frames[12:]
        assert {avatar_of(f.data) for f in later} == {"chen"}
        assert [(f.epoch, f.index, f.pts) for f in later][:2] == [(1, 0, 0), (1, 1, 1333)]
        assert any(c.epoch == 0 for c in gateway.stages.gpu.closed)


async def test_a_lower_rate_of_the_machine_reaches_running_sessions(gateway: Running) -> None:
    async with client_v2(gateway) as client:
        gateway.does.fps, gateway.does.notice = 8, "a clip takes 0.6 s here"
        await client.until(lambda c: c.text("ready")["fps"] == 8)
        assert client.text("ready")["notice"] == "a clip takes 0.6 s here"
        await client.speak(noise(1.0))
        await client.until(lambda c: len(c.frames) == 8)
        assert [f.pts for f in client.frames[:5]] == [0, 2000, 4000, 6000, 8000]
    gateway.does.fps = 24
    while gateway.get("/avatars.json")[1].find('"fps": 24') < 0:
        await asyncio.sleep(0.05)


async def test_fewer_frames_of_a_busy_machine_need_no_new_epoch(gateway: Running) -> None:
    async with client_v2(gateway) as client:
        await client.speak(noise(1.0))
        await client.until(lambda c: len(c.frames) == 24)
        gateway.does.made_fps, gateway.does.notice = 12, "this machine is busy"
        began = asyncio.get_running_loop().time()
        await client.until(lambda c: any(t.get("notice") == "this machine is busy" for t in c.texts))
        assert asyncio.get_running_loop().time() - began < 0.6
        await client.speak(noise(1.0))
        await client.until(lambda c: len(c.frames) == 36)
        gateway.does.made_fps, gateway.does.notice = None, ""
        await client.until(lambda c: c.text("status")["fps"] == 12 and not c.text("status")["notice"])
        await client.speak(noise(0.5))
        await client.until(lambda c: len(c.frames) == 48 and c.text("status")["fps"] == 24)
        assert {f.epoch for f in client.frames} == {0} and in_order(client)
        assert [f.pts for f in client.frames] == [
            *(n * 16000 // 24 for n in range(24)),
            *(n * 16000 // 12 for n in range(12, 24)),
            *(n * 16000 // 24 for n in range(48, 60)),
        ]
        assert client.text("status")["frames_lost"] == 0


async def test_the_capacity_is_what_the_machine_measures(gateway: Running) -> None:
    gateway.does.sessions = 1  # --max-sessions 3 allows more
    while '"max_sessions": 1' not in gateway.get("/avatars.json")[1]:
        await asyncio.sleep(0.05)
    assert gateway.metric("echomimic_sessions_capacity") == 1
    async with client_v2(gateway):
        began = asyncio.get_running_loop().time()
        async with client_v2(gateway, ready=False) as second:
            code, reason = await second.closed()
            assert (code, reason[:5]) == (1013, "busy:")
            assert asyncio.get_running_loop().time() - began < 1.0
        gateway.does.sessions = 64  # more than --max-sessions
        while '"max_sessions": 3' not in gateway.get("/avatars.json")[1]:
            await asyncio.sleep(0.05)
        async with client_v2(gateway) as second:
            assert second.text("ready")["session"]


async def test_a_closed_session_is_closed_along_the_hops(gateway: Running) -> None:
    before = len(gateway.stages.gpu.closed)
    async with client_v1(gateway) as client:
        await client.speak(noise(0.2), pace=0)
        await asyncio.sleep(0.1)
    for _ in range(100):
        if len(gateway.stages.gpu.closed) > before:
            break
        await asyncio.sleep(0.02)
    assert gateway.stages.gpu.closed[-1].session == gateway.stages.audio.received[-1].session
    assert gateway.metric("echomimic_sessions") == 0


async def test_an_outage_is_told_and_the_sound_goes_on_without_a_gap(gateway: Running) -> None:
    """The stages go away for two seconds in the middle of speech."""
    sound = noise(6.0, 5)
    async with client_v2(gateway) as client:
        speaking = asyncio.create_task(client.speak(sound))
        await client.until(lambda c: len(c.frames) >= 24)
        gateway.does.warm = ("audio_worker", "encoder_worker")
        gone = asyncio.get_running_loop().time()
        await client.until(lambda c: any("face model stopped" in t.get("notice", "") for t in c.texts))
        told = asyncio.get_running_loop().time() - gone
        await asyncio.sleep(2.0)
        gateway.does.warm = ("audio_worker", "gpu_worker", "encoder_worker")
        await client.until(lambda c: c.text("ready")["epoch"] == 1)
        await speaking
        await client.until(lambda c: sum(len(m.samples) for m in c.audio) == len(sound))
        await client.until(lambda c: c.frames[-1].epoch == 1)
        print(f"told after {told:.2f} s")
        assert told < 1.0 + 0.5
        assert np.array_equal(client.heard, sound)
        assert [m.position for m in client.audio] == sorted({m.position for m in client.audio})
        places = [(f.epoch, f.seq, f.index) for f in client.frames]
        assert places == sorted(set(places))
        assert client.text("status")["notice"] == ""


async def test_options_that_change_in_an_outage_hold_after_it(gateway: Running) -> None:
    async with client_v2(gateway) as client:
        await client.until(lambda c: any(text["type"] == "ready" for text in c.texts))
        gateway.does.warm = ("audio_worker", "encoder_worker")
        await client.until(lambda c: any("face model stopped" in t.get("notice", "") for t in c.texts))
        await client.ws.send('{"type":"options","avatar":"bruno"}')
        gateway.does.warm = ("audio_worker", "gpu_worker", "encoder_worker")
        await client.until(lambda c: c.text("ready")["avatar"] == "bruno")
