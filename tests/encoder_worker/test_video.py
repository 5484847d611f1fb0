"""Coded clips: each decodes alone, is the same wherever it is made, and has the mark."""

from __future__ import annotations

import io
import sys
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from encoder_worker.coders import ClipCoder, Coders
from encoder_worker.jpeg import JpegEncoder
from encoder_worker.jpeg_pool import JpegPool
from encoder_worker.marks import split_units, with_generated_mark
from encoder_worker.video import ENCODERS, ClipEncoder, CodedPicture, VideoEncoder, bit_rate, working_encoder
from protocol.process.settings import load_settings
from protocol.wire.generated import DIGITAL_SOURCE_TYPE, XMP_UUID
from protocol.wire.video import H264, JPEG

av = pytest.importorskip("av")
HERE = [name for name, encoder in ENCODERS.items() if encoder.library in av.codecs_available]
needs_x264 = pytest.mark.skipif("x264" not in HERE, reason="this PyAV has no x264")


def moving(count: int, size: int = 64) -> np.ndarray:
    """A disc that moves over a slope of colours, (count, size, size, 3)."""
    y, x = np.mgrid[:size, :size]
    slope = np.stack([x * 255 // size, y * 255 // size, (x + y) * 127 // size], -1)
    pictures = []
    for index in range(count):
        disc = (x - 10 - 3 * index) ** 2 + (y - size // 2) ** 2 < 64
        pictures.append(np.where(disc[..., None], (240, 40, 40), slope).astype(np.uint8))
    return np.stack(pictures)


def coded(encoder: VideoEncoder, pictures: np.ndarray, fps: int = 24) -> list[CodedPicture]:
    coder = ClipEncoder(encoder, pictures.shape[1:3], fps, generated=True)
    return [each for part in np.array_split(pictures, 3) for each in coder(part)]


def decoded(codec: str, clip: list[CodedPicture]) -> np.ndarray:
    decoder = av.CodecContext.create(codec, "r")
    frames = [f for each in clip for f in decoder.decode(av.Packet(each.data))] + decoder.decode(None)
    assert all(frame.colorspace == 1 for frame in frames if codec == H264), "BT.709 is not announced"
    return np.stack([frame.to_ndarray(format="rgb24") for frame in frames])


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(float) - b).mean())


@pytest.mark.parametrize("name", HERE)
@pytest.mark.parametrize("fps", [24, 12, 8])
def test_a_clip_decodes_alone_and_each_frame_at_once(name: str, fps: int) -> None:
    encoder, pictures = ENCODERS[name], moving(fps // 2)
    clip = coded(encoder, pictures, fps)
    assert [each.key for each in clip] == [True] + [False] * (fps // 2 - 1)
    assert {each.codec for each in clip} == {encoder.codec}
    shown = decoded(encoder.codec, clip)
    assert shown.shape == pictures.shape
    near = [distance(a, b) for a, b in zip(shown, pictures, strict=True)]
    assert max(near) < 6, near
    # the pictures are not one picture repeated
    assert distance(shown[-1], pictures[0]) > 1.2 * near[-1]
    # no delay: what a decoder has got so far, it can show
    assert len(decoded(encoder.codec, clip[:2])) == 2


@needs_x264
def test_the_same_pictures_give_the_same_bytes_after_any_other_clip() -> None:
    pictures = moving(12)
    first = coded(ENCODERS["x264"], pictures)
    coded(ENCODERS["x264"], pictures[::-1])
    again = coded(ENCODERS["x264"], pictures)
    assert [each.data for each in first] == [each.data for each in again]
    # so the frames of a clip that two workers made can be mixed
    mixed = decoded(H264, first[:5] + again[5:])
    assert np.array_equal(mixed, decoded(H264, first))


@needs_x264
def test_the_key_frame_has_the_parameters_and_the_mark() -> None:
    pictures = moving(3)
    clip = coded(ENCODERS["x264"], pictures)
    kinds = [unit[0] & 31 for unit in split_units(clip[0].data)]
    assert kinds == [7, 8, 6, 5]
    assert clip[0].data.count(DIGITAL_SOURCE_TYPE.encode()) == 1 and XMP_UUID in clip[0].data
    assert b"x264" not in clip[0].data
    bare = ClipEncoder(ENCODERS["x264"], (64, 64), 24, generated=False)
    plain = bare(pictures)
    assert DIGITAL_SOURCE_TYPE.encode() not in plain[0].data
    assert np.array_equal(decoded(H264, plain), decoded(H264, clip))


def test_marking_keeps_the_slices() -> None:
    unit = b"\0\0\0\1\x67abc\0\0\1\x68d\0\0\0\1\x06old\x80\0\0\1\x65slice\0\0\1\x65more"
    marked = split_units(with_generated_mark(unit))
    assert [marked[i] for i in (0, 1, 3, 4)] == [b"\x67abc", b"\x68d", b"\x65slice", b"\x65more"]
    assert marked[2][0] == 6 and b"old" not in marked[2]


def coders(video: str = "auto") -> Coders:
    made = Coders(load_settings(["--video", video], {}), JpegPool(JpegEncoder(), 1))
    made.warm_up(64, 64)
    return made


def test_without_the_library_every_clip_is_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", cast("Any", None))
    monkeypatch.setitem(sys.modules, "av.codec", cast("Any", None))
    made = coders()
    assert made.names == []
    clip = ClipCoder(made, H264, 24)(moving(2))
    assert [each.codec for each in clip] == [JPEG, JPEG]


def test_off_and_odd_sizes_are_jpeg() -> None:
    assert working_encoder("off", (64, 64)) is None
    assert working_encoder("auto", (63, 64)) is None


@needs_x264
def test_a_codec_that_fails_in_the_middle_goes_on_as_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    made = coders("x264")
    assert made.names == [H264]
    coder = ClipCoder(made, H264, 24)
    assert [each.codec for each in coder(moving(2))] == [H264, H264]

    def fail(self: ClipEncoder, pictures: np.ndarray) -> list[CodedPicture]:
        raise MemoryError("no more")

    monkeypatch.setattr(ClipEncoder, "__call__", fail)
    later = coder(moving(2))
    assert [(each.codec, each.key) for each in later] == [(JPEG, True), (JPEG, True)]
    with Image.open(io.BytesIO(later[0].data)) as picture:
        assert picture.size == (64, 64)
    assert made.names == [] and not ClipCoder(made, H264, 24).codes_video


def test_a_session_that_asked_for_jpeg_gets_it() -> None:
    assert {each.codec for each in ClipCoder(coders(), JPEG, 24)(moving(2))} == {JPEG}


def test_bit_rates_grow_with_the_picture() -> None:
    assert 4e5 < bit_rate(256, 256) < 6e5
    assert 1.2e6 < bit_rate(512, 512) < 1.5e6
