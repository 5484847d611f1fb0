"""Sessions of the Python client at a gateway: sound, pictures, options, errors."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from echomimic_live_client import Frame, Refused, Session, SessionEnded, Sound, connect
from echomimic_live_client.errors import ConnectionLost
from gateway.door.token_file import new_token
from tests.gateway.clients import noise
from tests.gateway.conftest import Running, free_port, running
from tests.helpers.certificates import make_pair
from tests.helpers.tokens import TokenBox

# On a machine that stands still for a second, the gateway leaves pictures out.
pytestmark = [pytest.mark.process, pytest.mark.timing]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, str]]:
    """A gateway with TLS below a path that asks for a token, and a token."""
    folder = tmp_path_factory.mktemp("tokens")
    box, pair = TokenBox(folder), make_pair()
    cert, key = pair.write(folder)
    with running(
        trust=ssl.create_default_context(cadata=pair.certificate.decode()),
        tls_cert=cert,
        tls_key=key,
        token_file=box.path,
        root_path="/face",
        log_level="DEBUG",
    ) as run:
        yield run, box.add("client")


async def everything(face: Session) -> tuple[list[Frame], np.ndarray]:
    """All that comes until the end, with its order checked."""
    items = [item async for item in face.media()]
    times = [(item.time, isinstance(item, Frame)) for item in items]
    assert times == sorted(times)
    sounds = [item for item in items if isinstance(item, Sound)]
    positions = np.cumsum([0, *(len(sound.samples) for sound in sounds)])
    assert [sound.position for sound in sounds] == positions[:-1].tolist()
    frames = [item for item in items if isinstance(item, Frame)]
    return frames, np.concatenate([np.empty(0, np.float32), *(sound.samples for sound in sounds)])


async def test_pictures_and_sound_come_in_order_with_their_places(gateway: Running) -> None:
    speech = noise(2.7, 1)
    texts: list[dict[str, Any]] = []
    async with connect(gateway.url(), avatar="bruno", on_text=texts.append) as face:
        assert (face.ready.avatar, face.ready.fps, face.ready.sample_rate) == ("bruno", 24, 16_000)
        for size in (1, 7, 4000):  # pieces of every size
            start = face._link.outbox.pushed
            for place in range(start, start + 3 * size, size):
                face.push(speech[place : place + size])
        face.push(speech[face._link.outbox.pushed :])
        face.finish()
        with pytest.raises(RuntimeError):
            face.push(speech)
        frames, heard = await everything(face)
    assert np.array_equal(heard, speech)
    assert [(f.seq, f.index, f.count) for f in frames] == [(k, i, 12) for k in range(6) for i in range(12)]
    assert all(f.pts == (n * 16_000) // 24 and f.time == f.pts / 16_000 for n, f in enumerate(frames))
    # The last clip is padded: its last pictures speak no sample of their own.
    assert [f.position for f in frames] == [min(f.pts, len(speech)) for f in frames]
    assert all(f.jpeg.startswith(b"\xff\xd8") and f.jpeg.endswith(b"\xff\xd9") for f in frames)
    assert face.seconds_unanswered == 0 and face.notice == ""
    assert texts[0]["type"] == "ready" and face.status is not None


async def test_a_pause_has_its_place_in_time(gateway: Running) -> None:
    async with connect(gateway.url()) as face:
        face.push(noise(0.2))
        face.flush()
        sound = await anext(face.sounds())
        assert len(sound.samples) == 3200
        face.push((noise(0.5) * 32767).astype(np.int16).tobytes())
        face.finish()
        frames = [frame async for frame in face.frames()]
    assert [(f.time, f.position) for f in frames[11:13]] == [
        (pytest.approx(11 / 24, abs=1e-4), 3200),
        (0.5, 3200),
    ]


async def test_options_change_in_the_middle(gateway: Running) -> None:
    speech = noise(1.5, 2)
    async with connect(gateway.url()) as face:
        face.push(speech[:16_000])
        await anext(face.frames())
        ready = await face.change(avatar="bruno", fps=12)
        assert (ready.avatar, ready.fps, ready.epoch) == ("bruno", 12, 1)
        face.push(speech[16_000:])
        face.finish()
        frames, heard = await everything(face)
        assert np.array_equal(heard, speech)
        assert {f.epoch for f in frames} >= {1} and frames[-1].time >= 1.4
        places = [f.position for f in frames]
        assert places == sorted(places)


async def test_the_rate_of_sound_changes_in_the_middle(gateway: Running) -> None:
    async with connect(gateway.url()) as face:
        face.push(noise(1.0))
        async for sound in face.sounds():
            if sound.seq == 1:
                break
        ready = await face.change(sample_rate=48_000)
        assert ready.sample_rate == 48_000
        later = noise(1.0, 3, 48_000)
        face.push(later)
        face.finish()
        sounds = [sound async for sound in face.sounds()]
    assert {sound.rate for sound in sounds} == {48_000} and sounds[0].position == 16_000
    assert np.array_equal(np.concatenate([sound.samples for sound in sounds]), later)


async def test_an_interruption_drops_what_waits(gateway: Running) -> None:
    async with connect(gateway.url()) as face:
        face.push(noise(6.0, 5))
        taken = []
        async for item in face.media():
            taken.append(item)
            if isinstance(item, Frame) and item.seq == 1:
                break
        answer = asyncio.create_task(face.interrupt())
        await asyncio.sleep(0)
        later = noise(1.0, 6)
        face.push(later)  # the beginning of the next epoch, answered or not
        face.finish()
        assert (await answer).epoch == 1 and (await answer).pts in (7333, 8000)
        rest = [item async for item in face.media()]
    sounds = [item for item in rest if isinstance(item, Sound)]
    assert {item.epoch for item in rest} == {1} and len(rest) - len(sounds) == 24
    assert np.array_equal(np.concatenate([sound.samples for sound in sounds]), later)
    assert sounds[0].time == 1.0 and taken[-1].time == 0.5


async def test_pictures_that_are_only_taken_are_sent_on(gateway: Running) -> None:
    async with connect(gateway.url(), acknowledge=False) as face:
        face.push(noise(2.0, 7))
        face.finish()
        frames = [frame async for frame in face.frames()]
        assert len(frames) == 48
        face.shown(frames[20])
        assert (await face.interrupt()).pts == frames[20].pts


async def test_the_wire_may_carry_int16(gateway: Running) -> None:
    speech = (noise(1.2, 8) * 32767).astype(np.int16)
    async with connect(gateway.url(), int16=True) as face:
        assert face.ready.fields["pcm"] == "s16"
        face.push(speech)
        face.finish()
        _, heard = await everything(face)
    assert np.array_equal(heard * 32768, speech)


async def test_live_sound_that_came_late_ends_too(gateway: Running) -> None:
    async with connect(gateway.url(), live=True, frames=False) as face:
        face.push(noise(5.0, 9))
        face.finish()
        heard = sum([len(sound.samples) async for sound in face.sounds()])
    assert heard < 4 * 16_000 and face.status is not None
    assert face.status.fields["seconds_left_out"] + face.status.fields["seconds_faster"] > 1


async def test_a_program_may_take_one_kind_alone(gateway: Running) -> None:
    async with connect(gateway.url(), frames=False) as one, connect(gateway.url(), sounds=False) as two:
        for face in (one, two):
            face.push(noise(1.0))
            face.finish()
        assert [type(item) async for item in one.media()] == [Sound] * 2
        assert [type(item) async for item in two.media()] == [Frame] * 24


async def test_nothing_said_ends_at_once(gateway: Running) -> None:
    async with connect(gateway.url()) as face:
        face.finish()
        assert [item async for item in face.media()] == []
    with pytest.raises(RuntimeError):
        face.push(noise(0.1))


async def test_errors_have_the_codes_of_the_wire(gateway: Running) -> None:
    with pytest.raises(SessionEnded) as wrong:
        async with connect(gateway.url(), avatar="nobody"):
            pass
    assert wrong.value.code == "bad_option" and "nobody" in wrong.value.message and not wrong.value.try_again
    async with connect(gateway.url()) as face:
        with pytest.raises(SessionEnded, match="bad_option"):
            await face.change(pose="nothing")
        with pytest.raises(SessionEnded, match="bad_option"):
            face.push(noise(0.1))
    for _ in range(100):
        if gateway.metric("echomimic_sessions") == 0:
            break
        await asyncio.sleep(0.05)
    async with connect(gateway.url()), connect(gateway.url()), connect(gateway.url()):
        with pytest.raises(SessionEnded) as full:
            async with connect(gateway.url()):
                pass
    assert full.value.code == "busy" and full.value.try_again
    with pytest.raises(ConnectionLost) as nobody:
        async with connect(f"http://127.0.0.1:{free_port()}"):
            pass
    assert nobody.value.code == "connection_lost" and nobody.value.try_again


@pytest.mark.parametrize(
    ("token", "code"), [("", "token_missing"), (new_token(), "token_wrong")], ids=["none", "wrong"]
)
async def test_a_refusal_at_the_door_has_its_code(
    guarded: tuple[Running, str], token: str, code: str
) -> None:
    with pytest.raises(Refused) as refused:
        async with connect(guarded[0].url("/face/"), token=token, ssl=guarded[0].trust):
            pass
    assert (refused.value.code, refused.value.status) == (code, 401)
    assert not refused.value.try_again and not (token and token in str(refused.value))


@pytest.mark.parametrize("place", ["argument", "query"])
async def test_a_token_opens_the_door_and_is_in_no_address(guarded: tuple[Running, str], place: str) -> None:
    run, token = guarded
    query = f"?token={token}" if place == "query" else ""
    face = connect(run.url(f"/face/{query}"), token="" if query else token, ssl=run.trust)
    async with face:
        face.push(noise(0.5))
        face.finish()
        assert len([frame async for frame in face.frames()]) == 12
    assert token not in run.log() and token not in repr(face._link.network) and token not in repr(face.ready)


async def test_a_token_goes_to_no_other_server() -> None:
    visitors: list[str] = []

    def send_away(connection: ServerConnection, request: Request) -> Response:
        visitors.append(request.path)
        host = request.headers["Host"]
        return Response(302, "Found", Headers({"Location": f"http://{host}/away?token=secret"}), b"")

    async with serve(
        lambda connection: connection.wait_closed(), "127.0.0.1", 0, process_request=send_away
    ) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        with pytest.raises(Refused) as sent:
            async with connect(f"http://127.0.0.1:{port}", token="secret"):
                pass
    assert visitors == ["/ws"] and sent.value.status == 302
    assert f"127.0.0.1:{port}/away" in sent.value.message and "secret" not in sent.value.message


@pytest.mark.long
@pytest.mark.slow
async def test_a_long_speech_in_one_go_goes_up_bit_by_bit(gateway: Running) -> None:
    speech = noise(11.0, 4)
    async with connect(gateway.url(), frames=False) as face:
        face.push(speech)
        face.finish()
        most = 0.0
        sounds = []
        async for sound in face.sounds():
            sounds.append(sound.samples)
            most = max(most, face.status.seconds_waiting if face.status else 0.0)
    assert np.array_equal(np.concatenate(sounds), speech)
    assert 4 < most <= 8
