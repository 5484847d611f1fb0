"""H.264 on the wire: asked for, decoded, given up for JPEG, interrupted, resumed. Version 1 stays JPEG."""

from __future__ import annotations

import json
from itertools import groupby

import numpy as np
import pytest

from protocol.wire.browser import VideoMessage
from tests.gateway.clients import Client, client_v1, client_v2, noise
from tests.gateway.conftest import Running
from tests.gateway.test_resume import break_off, resume_of

av = pytest.importorskip("av")
# On a machine that stands still for a second, the gateway leaves pictures out.
pytestmark = [
    pytest.mark.process,
    pytest.mark.timing,
    pytest.mark.skipif("libx264" not in av.codecs_available, reason="this PyAV has no x264"),
]
H264 = {"video": ["h264", "vp8"]}


def pictures_of(frames: list[VideoMessage]) -> list[np.ndarray]:
    """Every frame decoded, each clip by a decoder of its own, as after a loss."""
    shown = []
    for _, clip in groupby(frames, lambda f: (f.epoch, f.seq)):
        decoder = av.CodecContext.create("h264", "r")
        for frame in clip:
            shown += decoder.decode(av.Packet(frame.data))
        shown += decoder.decode(None)
    return [picture.to_ndarray(format="rgb24") for picture in shown]


async def spoken(client: Client, seconds: float = 1.0) -> list[VideoMessage]:
    before = len(client.frames)
    await client.speak(noise(seconds))
    await client.until(lambda c: len(c.frames) - before >= 24 * seconds)
    return client.frames[before:]


async def test_a_client_that_asks_gets_clips_that_decode_alone(gateway: Running) -> None:
    async with client_v2(gateway, hello=H264) as client:
        assert client.text("ready")["video"] == "h264"
        frames = await spoken(client, 1.5)
        assert {frame.codec for frame in frames} == {"h264"}
        assert [frame.key for frame in frames] == [frame.index == 0 for frame in frames]
        pictures = pictures_of(frames)
        size = client.text("ready")["width"]
        assert len(pictures) == len(frames) and pictures[0].shape == (size, size, 3)
        assert np.abs(pictures[0].astype(int) - pictures[-1]).mean() > 0.5  # it moves


@pytest.mark.parametrize("asked", [{}, {"video": []}, {"video": ["av2"]}])
async def test_others_get_jpeg(gateway: Running, asked: dict[str, list[str]]) -> None:
    async with client_v2(gateway, hello=asked) as client:
        assert client.text("ready")["video"] == "jpeg"
        assert {frame.codec for frame in await spoken(client, 0.5)} == {"jpeg"}


async def test_version_1_gets_jpeg_whatever_it_asks(gateway: Running) -> None:
    async with client_v1(gateway, "?video=h264") as client:
        await client.speak(noise(0.5))
        await client.until(lambda c: len(c.frames) >= 12)
        assert all(frame.data.startswith(b"\xff\xd8") for frame in client.frames)


async def test_a_client_whose_decoder_fails_goes_on_with_jpeg(gateway: Running) -> None:
    async with client_v2(gateway, hello=H264) as client:
        await spoken(client, 0.5)
        await client.ws.send(json.dumps({"type": "options", "video": []}))
        await client.until(lambda c: c.text("ready")["video"] == "jpeg")
        frames = [
            frame for frame in await spoken(client, 1.0) if frame.epoch == client.text("ready")["epoch"]
        ]
        assert len(frames) >= 12 and {frame.codec for frame in frames} == {"jpeg"}


async def test_after_an_interrupt_a_key_frame_begins(gateway: Running) -> None:
    async with client_v2(gateway, hello=H264) as client:
        await client.speak(noise(3.0), pace=0, chunk=1.0)
        await client.until(lambda c: len(c.frames) >= 5)
        await client.ws.send('{"type":"interrupt"}')
        await client.until(lambda c: any(text["type"] == "interrupted" for text in c.texts))
        epoch = client.text("interrupted")["epoch"]
        frames = [frame for frame in await spoken(client, 1.0) if frame.epoch == epoch]
        assert frames[0].key and frames[0].index == 0
        assert len(pictures_of(frames)) == len(frames)


async def test_a_lost_connection_goes_on_in_the_middle_of_a_clip(gateway: Running) -> None:
    async with client_v2(gateway, acks=False, hello=H264) as one:
        await one.speak(noise(1.0))
        await one.until(lambda c: len(c.frames) >= 24)
        # the client says that it has less than came: the rest comes again
        resume = {**resume_of(one), "seen_seq": 1, "seen_index": 6}
        await break_off(one)
    async with client_v2(gateway, hello={**H264, "resume": resume}) as two:
        assert two.text("ready")["resumed"] and two.text("ready")["video"] == "h264"
        await two.speak(noise(0.5))
        await two.until(lambda c: c.frames and (c.frames[-1].seq, c.frames[-1].index) == (2, 11))
    places = [(frame.seq, frame.index) for frame in two.frames]
    assert places == [(1, index) for index in range(7, 12)] + [(2, index) for index in range(12)]
    frames = [*(frame for frame in one.frames if (frame.seq, frame.index) <= (1, 6)), *two.frames]
    assert len(pictures_of(frames)) == 36


@pytest.mark.parametrize("made", [12, 8])
async def test_fewer_frames_are_a_group_of_their_own(gateway: Running, made: int) -> None:
    gateway.does.made_fps = made
    async with client_v2(gateway, hello=H264) as client:
        await client.speak(noise(1.0))
        await client.until(lambda c: len(c.frames) >= made)
        assert {frame.count for frame in client.frames} == {made // 2}
        assert len(pictures_of(client.frames)) == len(client.frames)


@pytest.mark.parametrize("value", ["h264", [1], ["h264"] * 9, {}])
async def test_a_list_that_is_none_is_refused(gateway: Running, value: object) -> None:
    async with client_v2(gateway, ready=False, hello={"video": value}) as client:
        code, reason = await client.closed()
        assert code == 1008 and reason.startswith("bad_option")
