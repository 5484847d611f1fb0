"""Recordings of the Python client: pictures as they came, and sound in step."""

from __future__ import annotations

import csv
import importlib.util
import wave
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from echomimic_live_client import Frame, Recorder, Sound, VideoDecoder, connect, record
from tests.gateway.clients import noise
from tests.gateway.conftest import Running

# On a machine that stands still for a second, the gateway leaves pictures out.
pytestmark = [pytest.mark.process, pytest.mark.timing]


async def two_words(run: Running, path: Path) -> tuple[Path, list[Frame | Sound]]:
    """Record two words with a pause between them. Returns the recording and everything in it."""
    items: list[Frame | Sound] = []
    async with connect(run.url()) as face:
        face.push(noise(0.7, 1))
        face.flush()

        async def media() -> AsyncIterator[Frame | Sound]:
            async for item in face.media():
                items.append(item)
                if isinstance(item, Frame) and (item.seq, item.index) == (1, 11):
                    face.push(noise(0.6, 2))
                    face.finish()
                yield item

        return await record(media(), path), items


def wanted_sound(items: list[Frame | Sound], rate: int) -> np.ndarray:
    sounds = [item for item in items if isinstance(item, Sound)]
    track = np.zeros(round(sounds[-1].time * rate) + len(sounds[-1].samples), np.int16)
    for sound in sounds:
        start = round(sound.time * rate)
        track[start : start + len(sound.samples)] = np.rint(sound.samples * 32768)
    return track


async def test_a_folder_has_pictures_their_times_and_sound(gateway: Running, tmp_path: Path) -> None:
    path, items = await two_words(gateway, tmp_path / "talk")
    frames = [item for item in items if isinstance(item, Frame)]
    rows = list(csv.DictReader((path / "frames.csv").open()))
    assert [(path / "frames" / row["file"]).read_bytes() for row in rows] == [frame.jpeg for frame in frames]
    assert [float(row["seconds"]) for row in rows] == pytest.approx(
        [frame.time for frame in frames], abs=1e-6
    )
    with wave.open(str(path / "sound.wav")) as file:
        assert file.getframerate() == 16_000
        sound = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert len(frames) == 48 and len(sound) == 16_000 + 9600
    assert np.array_equal(sound, wanted_sound(items, 16_000))
    with pytest.raises(FileExistsError):
        Recorder(path)


async def test_a_file_has_the_same_pictures_and_sound(gateway: Running, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path, items = await two_words(gateway, tmp_path / "new/talk.mkv")
    frames = [item for item in items if isinstance(item, Frame)]
    with av.open(str(path)) as file:
        packets = [packet for packet in file.demux(video=0) if packet.size]
    assert [bytes(packet) for packet in packets] == [frame.jpeg for frame in frames]
    times = [float(packet.pts * packet.time_base) for packet in packets]
    assert times == pytest.approx([frame.time for frame in frames], abs=0.001)
    with av.open(str(path)) as file:
        blocks = list(file.decode(audio=0))
    assert np.array_equal(np.concatenate([b.to_ndarray()[0] for b in blocks]), wanted_sound(items, 16_000))
    begins = np.cumsum([0, *(block.samples for block in blocks)])[:-1] / 16_000
    assert [float(b.pts * b.time_base) for b in blocks] == pytest.approx(begins.tolist(), abs=0.001)


def piece(seconds: float, rate: int = 16_000) -> Sound:
    return Sound(np.full(rate // 2, 0.5, np.float32), rate, 0, 0, 0, seconds, 0, True)


def test_sound_alone_is_a_recording(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with Recorder(tmp_path / "talk.mkv") as recorder:
        recorder.add(piece(0.0))
        recorder.add(piece(3.0))
        with pytest.raises(ValueError, match="one rate"):
            recorder.add(piece(4.0, 48_000))
    with av.open(str(recorder.path)) as file:
        assert sum(block.samples for block in file.decode(audio=0)) == 3.5 * 16_000


def test_without_pyav_a_file_becomes_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with Recorder(tmp_path / "talk.mkv") as recorder:
        recorder.add(piece(0.0))
    assert recorder.path == tmp_path / "talk" and (tmp_path / "talk/sound.wav").is_file()


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\.mkv"):
        Recorder(tmp_path / "talk.mp4")


async def test_h264_is_decoded_and_recorded_as_it_came(gateway: Running, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    if "libx264" not in av.codecs_available:
        pytest.skip("this PyAV has no x264")
    decoder, frames, shown = VideoDecoder(), [], []
    async with connect(gateway.url(), video=["h264"]) as face:
        face.push(noise(1.0))
        face.finish()
        with Recorder(tmp_path / "talk.mkv") as recorder:
            async for item in face.media():
                recorder.add(item)
                if isinstance(item, Frame):
                    frames.append(item)
                    shown.append(decoder.decode(item))
    assert len(frames) == 24 and {frame.codec for frame in frames} == {"h264"}
    with pytest.raises(ValueError, match="h264"):
        _ = frames[0].jpeg
    assert decoder.decode(frames[5]) is None
    with av.open(str(tmp_path / "talk.mkv")) as file:
        kept = [picture.to_ndarray(format="rgb24") for picture in file.decode(video=0)]
    assert all(b is not None and np.array_equal(a, b) for a, b in zip(kept, shown, strict=True))
