"""Recordings by a real gateway: the bytes that were sent, sound in step, bounded, private, killed."""

from __future__ import annotations

import asyncio
import io
import json
import os
import stat
import urllib.error
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from protocol.wire.generated import DIGITAL_SOURCE_TYPE
from tests.gateway.clients import Client, client_v1, client_v2, noise
from tests.gateway.conftest import Running, running
from tests.helpers.lip_sync import bursts, offsets, pictures_of, sound_of
from tests.helpers.tokens import TokenBox

av = pytest.importorskip("av")
# On a machine that stands still for a second, the gateway leaves pictures out.
pytestmark = [
    pytest.mark.process,
    pytest.mark.timing,
    pytest.mark.skipif("libx264" not in av.codecs_available, reason="this PyAV has no x264"),
]
H264 = {"video": ["h264"]}
RATE = 16_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recordings") / "made"


@pytest.fixture(scope="module")
def gateway(folder: Path) -> Iterator[Running]:
    with running(max_sessions=3, idle_flush=1.0, record_dir=folder) as run:
        yield run


async def recorded(client: Client, sound: np.ndarray) -> dict[str, Any]:
    """Record a client that speaks. Returns the text about the finished file."""
    await client.ws.send('{"type":"record","action":"start"}')
    await asyncio.sleep(0.1)
    await client.speak(sound)
    await client.until(lambda c: len(c.frames) >= 24 * len(sound) / RATE)
    await played(client)
    await client.ws.send('{"type":"record","action":"stop"}')
    await client.until(lambda c: told(c)[-1:] and told(c)[-1]["state"] == "finished")
    assert [text["state"] for text in told(client)[-2:]] == ["started", "finished"]
    return told(client)[-1]


async def played(client: Client) -> None:
    """Wait until the last clip has been played."""
    speech = ("speech_started", "speech_ended")
    await client.until(
        lambda c: [t["type"] for t in c.texts if t["type"] in speech][-1:] == ["speech_ended"], 15
    )


def told(client: Client) -> list[dict[str, Any]]:
    return [text for text in client.texts if text["type"] == "recording"]


def fetch(run: Running, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    request = urllib.request.Request(run.url(path), method=method, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read(), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, error.read(), dict(error.headers)


def units(data: bytes) -> list[bytes]:
    """The NAL units of Annex B."""
    return [unit.rstrip(b"\0") for unit in data.split(b"\0\0\1")[1:]]


def packets_of(content: bytes) -> list[bytes]:
    """The pictures of a file, H.264 as Annex B again."""
    out = []
    with av.open(io.BytesIO(content)) as file:
        h264 = file.streams.video[0].codec_context.name == "h264"
        for packet in file.demux(video=0):
            data, at, found = bytes(packet), 0, b""
            while h264 and at < len(data):
                size = int.from_bytes(data[at : at + 4], "big")
                found += b"\0\0\1" + data[at + 4 : at + 4 + size]
                at += 4 + size
            out.append(found if h264 else data)
    return [data for data in out if data]


@pytest.mark.parametrize(
    ("hello", "ending", "codec"),
    [(H264, ".mp4", "h264"), pytest.param({}, ".mkv", "mjpeg", marks=pytest.mark.long)],
)
async def test_the_file_has_the_bytes_that_were_sent_with_sound_in_step(
    gateway: Running, folder: Path, hello: dict[str, Any], ending: str, codec: str
) -> None:
    async with client_v2(gateway, hello=hello) as client:
        text = await recorded(client, bursts())
        status, content, headers = fetch(gateway, f"/recordings/{text['name']}")
    assert status == 200 and len(content) == text["bytes"] and headers["Content-Type"] == text["mime"]
    assert text["name"].endswith(ending) and 2.9 < text["seconds"] < 4.2
    sent = [frame.data for frame in client.frames]
    kept = packets_of(content)
    if codec == "h264":
        assert [units(data) for data in kept] == [units(data) for data in sent][: len(kept)]
    else:
        assert kept == sent[: len(kept)]
    assert len(kept) >= 72
    assert np.abs(offsets(content)).max() < 0.02
    assert DIGITAL_SOURCE_TYPE.encode() in content
    mode = os.stat(folder / text["name"]).st_mode
    assert stat.S_IMODE(mode) == 0o600 and stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    # nothing was coded again: the sound of Matroska is exact
    if ending == ".mkv":
        difference = np.abs(sound_of(content)[1][: 3 * RATE] - bursts())
        assert difference.max() < 1e-4


async def test_an_interruption_cuts_off_what_nobody_heard(gateway: Running) -> None:
    async with client_v2(gateway, hello=H264) as client:
        await client.ws.send('{"type":"record","action":"start"}')
        await client.speak(noise(3.0), pace=0, chunk=1.0)
        await client.until(lambda c: len(c.frames) >= 20)
        await client.ws.send('{"type":"interrupt"}')
        await client.until(lambda c: any(t["type"] == "interrupted" for t in c.texts))
        interrupted = len(client.frames)
        await client.speak(bursts()[:RATE])
        await client.until(lambda c: len(c.frames) >= interrupted + 24)
        await played(client)
        await client.ws.send('{"type":"record","action":"stop"}')
        await client.until(lambda c: told(c)[-1:] and told(c)[-1]["state"] == "finished")
    content = fetch(gateway, f"/recordings/{told(client)[-1]['name']}")[1]
    sound = sound_of(content)[1]
    burst = np.flatnonzero(np.convolve(np.abs(sound), np.ones(400) / 400, "same") > 0.01)
    # a second and a half of the noise at most, a pause, the burst at 0.75 s of the second word
    assert 1.0 < len(sound) / RATE < 4.0 and len(burst) < 2.0 * RATE
    times, pictures = pictures_of(content)
    assert len(times) == len(pictures) and all(b > a for a, b in pairwise(times))


async def test_files_are_listed_read_in_ranges_and_removed(gateway: Running, folder: Path) -> None:
    async with client_v2(gateway, hello=H264) as client:
        session = client.text("ready")["session"]
        text = await recorded(client, noise(0.5))
        content = fetch(gateway, f"/recordings/{text['name']}")[1]
        listed = json.loads(fetch(gateway, f"/recordings.json?session={session}")[1])["recordings"]
        assert [one["name"] for one in listed] == [text["name"]] and listed[0]["bytes"] == len(content)
        assert json.loads(fetch(gateway, "/recordings.json?session=ffff")[1])["recordings"] == []
        status, part, headers = fetch(gateway, f"/recordings/{text['name']}", Range="bytes=10-29")
        assert status == 206 and part == content[10:30]
        assert headers["Content-Range"] == f"bytes 10-29/{len(content)}"
        assert fetch(gateway, f"/recordings/{text['name']}", Range=f"bytes={len(content)}-")[0] == 416
        for name in ("nothing.mp4", "../secret", f"{text['name']}.json", "a" * 22 + ".mp4"):
            assert fetch(gateway, f"/recordings/{name}")[0] == 404
        assert fetch(gateway, f"/recordings/remove?name={text['name']}", "POST")[0] == 200
        assert fetch(gateway, f"/recordings/{text['name']}")[0] == 404
        assert not list(folder.glob(text["name"] + "*"))


async def test_by_http_a_program_starts_stops_and_takes_a_snapshot(gateway: Running) -> None:
    async with client_v2(gateway, hello=H264) as client:
        session = client.text("ready")["session"]
        assert fetch(gateway, f"/snapshot.jpg?session={session}")[0] == 404
        assert fetch(gateway, "/recordings/start?session=none", "POST")[0] == 404
        assert fetch(gateway, f"/recordings/stop?session={session}", "POST")[0] == 409
        assert fetch(gateway, f"/recordings/start?session={session}")[0] == 404  # a GET changes nothing
        assert fetch(gateway, f"/recordings/start?session={session}", "POST")[0] == 200
        assert fetch(gateway, f"/recordings/start?session={session}", "POST")[0] == 409
        await client.speak(noise(1.0))
        await client.until(lambda c: len(c.frames) >= 24)
        status, jpeg, _ = fetch(gateway, f"/snapshot.jpg?session={session}")
        with Image.open(io.BytesIO(jpeg)) as picture:
            assert status == 200 and picture.size == (256, 256)
        assert DIGITAL_SOURCE_TYPE.encode() in jpeg
        assert fetch(gateway, f"/recordings/stop?session={session}", "POST")[0] == 200
        await client.until(lambda c: told(c)[-1:] and told(c)[-1]["state"] == "finished")


@pytest.mark.long
async def test_another_codec_begins_another_file(gateway: Running) -> None:
    async with client_v2(gateway, hello=H264) as client:
        await client.ws.send('{"type":"record","action":"start"}')
        await client.speak(noise(1.0))
        await client.until(lambda c: len(c.frames) >= 24)
        await client.ws.send('{"type":"options","video":[]}')
        await client.until(lambda c: c.text("ready")["video"] == "jpeg")
        await client.speak(noise(1.0))
        await client.until(lambda c: len([f for f in c.frames if f.codec == "jpeg"]) >= 24)
        await played(client)
        await client.ws.send('{"type":"record","action":"stop"}')
        await client.until(lambda c: [t["state"] for t in told(c)].count("finished") == 2)
    names = [text["name"] for text in told(client) if text["state"] == "finished"]
    assert [Path(name).suffix for name in names] == [".mp4", ".mkv"]
    for name in names:
        assert len(packets_of(fetch(gateway, f"/recordings/{name}")[1])) >= 20


async def test_version_1_is_recorded_by_http_and_ends_with_its_session(
    gateway: Running, folder: Path
) -> None:
    before = set(folder.glob("*.mkv"))
    async with client_v1(gateway) as client:
        await client.speak(noise(0.5))
        await client.until(lambda c: len(c.frames) >= 12)
        session = gateway.log().rsplit(" begins: version 1", 1)[0].rsplit(" ", 1)[1]
        assert fetch(gateway, f"/recordings/start?session={session}", "POST")[0] == 200
        await client.speak(noise(1.0))
        await client.until(lambda c: len(c.frames) >= 36)
    for _ in range(100):
        await asyncio.sleep(0.05)
        done = [json.loads(path.read_bytes()) for path in folder.glob("*.mkv.json")]
        if any(one["session"] == session and one["finished"] for one in done):
            break
    (path,) = set(folder.glob("*.mkv")) - before
    kept = packets_of(path.read_bytes())
    sent = [frame.data for frame in client.frames]
    start = sent.index(kept[0])
    assert len(kept) >= 20 and kept == sent[start : start + len(kept)]


async def test_wrong_actions_and_doubles_are_told(gateway: Running) -> None:
    async with client_v2(gateway) as client:
        await client.ws.send('{"type":"record","action":"stop"}')
        await client.until(told)
        assert told(client)[0]["state"] == "failed" and "not recorded" in told(client)[0]["reason"]
        await client.ws.send('{"type":"record","action":"pause"}')
        assert (await client.closed())[0] == 1007


@pytest.mark.long
async def test_a_killed_gateway_leaves_a_file_that_plays(tmp_path: Path) -> None:
    made = tmp_path / "made"
    with running(max_sessions=1, idle_flush=1.0, record_dir=made, record_keep=1) as run:
        async with client_v2(run, hello=H264) as client:
            await client.ws.send('{"type":"record","action":"start"}')
            await client.speak(bursts())
            await client.until(lambda c: len(c.frames) >= 72)
            session = client.text("ready")["session"]
            run.kill()
        (path,) = made.glob("*.mp4")
        content = path.read_bytes()
        times, pictures = pictures_of(content)
        assert len(pictures) >= 36 and times[-1] > 1.4
        kept = packets_of(content)
        assert [units(d) for d in kept] == [units(f.data) for f in client.frames[: len(kept)]]
        (made / "mine.mp4").write_bytes(b"not the project's")
        (made / "mine.mp4.json").write_text('{"name": "mine.mp4"}')
        run.start()
        run.wait_ready()
        # the next gateway has it still, and says that it is not complete
        listed = json.loads(fetch(run, f"/recordings.json?session={session}")[1])["recordings"]
        assert [(one["name"], one["state"]) for one in listed] == [(path.name, "started")]
        # by rule one recording stays: the older one goes, and nothing that is not the project's
        async with client_v2(run, hello=H264) as client:
            text = await recorded(client, noise(0.5))
        assert {p.name for p in made.glob("*.mp4")} == {text["name"], "mine.mp4"}


@pytest.mark.long
async def test_a_recording_is_bounded_and_private_to_its_token(tmp_path: Path) -> None:
    box = TokenBox(tmp_path)
    mine, other = (box.add(name) for name in ("mine", "other"))
    with running(
        max_sessions=2, idle_flush=1.0, record_dir=tmp_path / "made", record_mb=1, token_file=box.path
    ) as run:
        headers = {"Authorization": f"Bearer {mine}"}
        strange = {"Authorization": f"Bearer {other}"}
        async with client_v2(run, hello={}, additional_headers=headers) as client:
            session = client.text("ready")["session"]
            start = f"/recordings/start?session={session}"
            assert fetch(run, start, "POST")[0] == 401
            assert fetch(run, start, "POST", **strange)[0] == 404
            assert fetch(run, start, "POST", **headers)[0] == 200
            await client.speak(noise(6.5))  # 256² as JPEG: a megabyte in a few seconds
            await client.until(lambda c: told(c)[-1:] and told(c)[-1]["state"] == "finished", 12)
            text = told(client)[-1]
            assert "large" in text["reason"] and text["bytes"] < 1.4e6
            path = f"/recordings/{text['name']}"
            assert fetch(run, path)[0] == 401 and fetch(run, path, **strange)[0] == 404
            assert fetch(run, f"/snapshot.jpg?session={session}", **strange)[0] == 404
            assert fetch(run, path, **headers)[0] == 200


@pytest.mark.long
async def test_no_record_records_nothing(tmp_path: Path) -> None:
    with running(max_sessions=1, record=False, record_dir=tmp_path / "made") as run:
        async with client_v2(run) as client:
            await client.ws.send('{"type":"record","action":"start"}')
            await client.until(told)
            assert told(client)[0]["reason"] == "this server does not record"
    assert not (tmp_path / "made").exists()


@pytest.fixture(scope="module")
def vp8(folder: Path) -> Iterator[Running]:
    with running(max_sessions=2, idle_flush=1.0, record_dir=folder, video="vp8") as run:
        yield run


async def test_a_webm_has_both_streams_whole_and_in_step(vp8: Running) -> None:
    async with client_v2(vp8, hello={"video": ["h264", "vp8"]}) as client:
        assert client.text("ready")["video"] == "vp8"
        text = await recorded(client, bursts())
    content = fetch(vp8, f"/recordings/{text['name']}")[1]
    assert text["name"].endswith(".webm") and text["mime"] == "video/webm"
    with av.open(io.BytesIO(content)) as file:
        assert "webm" in file.format.name
        (video,), (sound,) = file.streams.video, file.streams.audio
        assert (video.codec_context.name, video.width, video.height) == ("vp8", 256, 256)
        assert (sound.codec_context.name, sound.rate, sound.channels) == ("opus", 48_000, 1)
        assert file.duration / av.time_base == pytest.approx(text["seconds"], abs=0.05)
        assert DIGITAL_SOURCE_TYPE in " ".join(file.metadata.values())
    kept = packets_of(content)
    assert kept == [frame.data for frame in client.frames][: len(kept)] and len(kept) >= 72
    begin, samples = sound_of(content)
    assert abs(begin) < 0.01 and len(samples) / RATE == pytest.approx(text["seconds"], abs=0.1)
    times, pictures = pictures_of(content)
    assert len(pictures) == len(kept) and times[0] < 0.01
    assert times[:72] == pytest.approx([number / 24 for number in range(72)], abs=0.002)
    late = offsets(content)
    print(f"pictures after the sound in milliseconds: {[round(1000 * value, 1) for value in late]}")
    assert np.abs(late).max() < 0.02


@pytest.mark.long
async def test_a_killed_gateway_leaves_a_webm_that_plays(tmp_path: Path) -> None:
    with running(max_sessions=1, idle_flush=1.0, record_dir=tmp_path / "made", video="vp8") as run:
        async with client_v2(run, hello={"video": ["vp8"]}) as client:
            await client.ws.send('{"type":"record","action":"start"}')
            await client.speak(bursts())
            await client.until(lambda c: len(c.frames) >= 72)
            run.kill()
        (path,) = (tmp_path / "made").glob("*.webm")
        content = path.read_bytes()
        times, pictures = pictures_of(content)
        assert len(pictures) >= 36 and times[-1] > 1.4 and len(sound_of(content)[1]) > 1.4 * RATE
        kept = packets_of(content)
        assert kept == [frame.data for frame in client.frames][: len(kept)]
        run.start()
        run.wait_ready()
