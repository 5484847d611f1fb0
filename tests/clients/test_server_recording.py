"""The Python client and recordings of a real gateway: start, stop, fetch, and what can go wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from echomimic_live_client import ClientError, Refused, Session, connect
from echomimic_live_client import server_recording as module
from tests.clients.relay import relay_to
from tests.gateway.clients import noise
from tests.gateway.conftest import Running, running
from tests.helpers.lip_sync import bursts, offsets
from tests.helpers.tokens import TokenBox

av = pytest.importorskip("av")
# On a machine that stands still for a second, the gateway leaves pictures out.
pytestmark = [
    pytest.mark.process,
    pytest.mark.timing,
    pytest.mark.skipif("libx264" not in av.codecs_available, reason="this PyAV has no x264"),
]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    made = tmp_path_factory.mktemp("recordings") / "made"
    with running(max_sessions=3, idle_flush=1.0, record_dir=made) as run:
        yield run


async def speak(face: Session, samples: Any) -> None:
    face.push(samples)
    face.finish()
    async for _ in face.frames():
        pass


async def test_a_recording_is_started_stopped_and_fetched(
    gateway: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE", 20_000)  # several ranges
    texts: list[dict[str, Any]] = []
    async with connect(gateway.url(), video=["h264"], on_text=texts.append) as face:
        recording = await face.record()
        with pytest.raises(ClientError) as doubled:
            await face.record()
        assert doubled.value.code == "recording_already"
        await speak(face, bursts())
        await asyncio.sleep(1.0)  # the last clip is played
        (path,) = await recording.save(tmp_path / "new/talk")
    assert path == tmp_path / "new/talk.mp4" and not list(path.parent.glob("*.part"))
    (file,) = recording.files
    content = path.read_bytes()
    assert len(content) == file.bytes > 40_000
    assert (file.mime, file.code, file.finished) == ("video/mp4", "recording_stopped", True)
    assert 2.9 < file.seconds < 4.2 and max(map(abs, offsets(content))) < 0.02
    assert [text["state"] for text in texts if text["type"] == "recording"] == ["started", "finished"]


async def test_nothing_played_is_no_file_and_the_next_recording_is_its_own(
    gateway: Running, tmp_path: Path
) -> None:
    texts: list[dict[str, Any]] = []
    async with connect(gateway.url(), on_text=texts.append) as face:
        assert await (await face.record()).save(tmp_path / "empty") == []
        failed = [text for text in texts if text["type"] == "recording"]
        assert [text["phrase"]["code"] for text in failed] == ["recording_empty"]
        for name in ("one", "two"):
            recording = await face.record()
            face.push(noise(1.0))
            face.flush()
            async for frame in face.frames():
                if frame.index == frame.count - 1 and frame.seq % 2:
                    break
            await asyncio.sleep(0.6)
            assert await recording.save(tmp_path / f"{name}.mkv") == [tmp_path / f"{name}.mkv"]
        await recording.remove()
        with pytest.raises(ClientError) as gone:
            await recording.fetch(recording.files[0], tmp_path / "again.mkv")
        assert gone.value.code == "recording_gone" and not (tmp_path / "again.mkv").exists()


async def test_a_recording_ends_with_its_session_and_outlasts_lost_connections(
    gateway: Running, tmp_path: Path
) -> None:
    async with relay_to(gateway.settings.port) as relay:
        async with connect(relay.url) as face:
            recording = await face.record()
            face.push(noise(2.0))
            face.finish()
            count = 0
            async for _ in face.frames():
                count += 1
                if count == 12:
                    relay.cut()
            assert face.reconnects == 1
            await asyncio.sleep(1.0)  # the last clip is played
        (file,) = await recording.stop()
        (path,) = await recording.save(tmp_path / "talk")
    assert file.code == "recording_over" and file.seconds > 1.5 and path.stat().st_size == file.bytes


async def test_a_server_that_records_nothing_says_so(tmp_path: Path) -> None:
    box = TokenBox(tmp_path)
    token = box.add("mine")
    with running(max_sessions=1, record=False, token_file=box.path) as run:
        async with connect(run.url(), token=token) as face:
            with pytest.raises(ClientError) as off:
                await face.record()
            assert off.value.code == "recording_off" and not isinstance(off.value, Refused)
