"""JPEG round trips, and the choice where a library does not load."""

from __future__ import annotations

import ctypes.util
import io
from xml.etree import ElementTree

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from encoder_worker.jpeg import JpegEncoder, Picture, with_segments


def drawn(side: int = 256) -> Picture:
    """A flat picture with hard, strongly coloured edges, drawn at four times the size."""
    y, x = np.mgrid[: side * 4, : side * 4] / (side * 4)
    picture = np.full((side * 4, side * 4, 3), (110, 190, 230), np.uint8)
    picture[(x - 0.5) ** 2 + (y - 1.1) ** 2 < 0.16] = (230, 80, 90)
    picture[(x - 0.5) ** 2 + (y - 0.42) ** 2 < 0.05] = (240, 200, 170)
    picture[((x - 0.5) / 2) ** 2 + (y - 0.52) ** 2 < 0.001] = (150, 30, 40)
    small: Picture = picture.reshape(side, 4, side, 4, 3).mean((1, 3)).astype(np.uint8)
    return small


def psnr(a: Picture, b: Picture) -> float:
    return float(10 * np.log10(255**2 / np.square(a.astype(float) - b).mean()))


def decoded(jpeg: bytes) -> Picture:
    return np.asarray(simplejpeg.decode_jpeg(jpeg), np.uint8)


def test_round_trip_at_the_default_quality() -> None:
    picture = drawn()
    jpeg = JpegEncoder()(picture)
    assert jpeg[:2] == b"\xff\xd8"
    score = psnr(picture, decoded(jpeg))
    print(f"jpeg: {score:.1f} dB in {len(jpeg)} bytes")
    assert score > 38


def test_quality_is_a_choice() -> None:
    picture = drawn()
    jpegs = [JpegEncoder(quality)(picture) for quality in (50, 75, 95)]
    sizes = [len(jpeg) for jpeg in jpegs]
    scores = [psnr(picture, decoded(jpeg)) for jpeg in jpegs]
    assert sizes == sorted(sizes) and scores == sorted(scores)


def test_full_colour_beats_halved_colour_on_drawn_pictures() -> None:
    picture = drawn()
    full, halved = (psnr(picture, decoded(JpegEncoder(90, kind)(picture))) for kind in ("444", "420"))
    assert full > halved + 2


def test_views_and_odd_sizes() -> None:
    picture = drawn(67)[::-1, :61]
    assert decoded(JpegEncoder()(picture)).shape == (67, 61, 3)


def test_a_comment_changes_no_pixel() -> None:
    jpeg = JpegEncoder()(drawn(64))
    marked = with_segments(jpeg, "echomimic pts=8000", generated=False)
    assert len(marked) == len(jpeg) + 4 + len("echomimic pts=8000")
    assert marked[:4] == b"\xff\xd8\xff\xe0" and b"\xff\xfe\x00\x14echomimic pts=8000" in marked[:64]
    np.testing.assert_array_equal(decoded(marked), decoded(jpeg))
    assert Image.open(io.BytesIO(marked)).info["comment"] == b"echomimic pts=8000"


def test_a_generated_picture_says_so_and_looks_the_same() -> None:
    jpeg = JpegEncoder()(drawn(64))
    marked = with_segments(jpeg, "echomimic pts=8000", generated=True)
    np.testing.assert_array_equal(decoded(marked), decoded(jpeg))
    picture = Image.open(io.BytesIO(marked))
    assert picture.info["comment"] == b"echomimic pts=8000"
    xmp = ElementTree.fromstring(picture.info["xmp"])
    (description,) = xmp.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description")
    source = description.get("{http://iptc.org/std/Iptc4xmpExt/2008-02-29/}DigitalSourceType")
    assert source == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    print(f"the mark takes {len(marked) - len(jpeg)} bytes")


def test_a_library_that_does_not_load_is_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    def broken(quality: int, subsampling: str) -> None:
        raise RuntimeError("PyTurboJPEG 2.0 requires libjpeg-turbo 3.0 or later")

    monkeypatch.setattr("encoder_worker.jpeg._turbojpeg", broken)
    assert JpegEncoder().library == "simplejpeg"
    assert caplog.messages[0].startswith("JPEG by simplejpeg, quality 90, 4:4:4")
    assert "turbojpeg: PyTurboJPEG 2.0 requires" in caplog.messages[1]
    with pytest.raises(RuntimeError, match=r"turbojpeg: .*requires libjpeg-turbo"):
        JpegEncoder(library="turbojpeg")


@pytest.mark.skipif(not ctypes.util.find_library("turbojpeg"), reason="the system has no libjpeg-turbo")
def test_the_systems_library_serves_where_there_is_one(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    encoder = JpegEncoder()
    assert encoder.library == "turbojpeg"
    assert caplog.messages == ["JPEG by turbojpeg, quality 90, 4:4:4"]
    assert psnr(drawn(), decoded(encoder(drawn()))) > 38


def test_wrong_choices() -> None:
    with pytest.raises(ValueError, match="444, 422, 420"):
        JpegEncoder(subsampling="411")
