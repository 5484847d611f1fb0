"""JPEG in strips: the same pixels as the whole picture's, in files that other decoders read too."""

from __future__ import annotations

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from encoder_worker import jpeg_strips
from encoder_worker.jpeg import JpegEncoder, Picture, with_comment
from encoder_worker.jpeg_strips import BLOCK, JpegPool, interval, joined, strip_rows, threads_for


def pictures(count: int, height: int, width: int) -> Picture:
    """Noise over a gradient: every block differs from its neighbour."""
    rng = np.random.default_rng(0)
    levels = np.linspace(0, 200, width) + rng.uniform(0, 55, (count, height, width))
    return np.stack((levels, 255 - levels, levels / 2), -1).astype(np.uint8)


def decoded(jpeg: bytes) -> Picture:
    return np.asarray(simplejpeg.decode_jpeg(jpeg), np.uint8)


@pytest.mark.parametrize("subsampling", ["444", "422", "420"])
@pytest.mark.parametrize(("height", "width"), [(64, 48), (75, 61), (200, 33)])
def test_strips_decode_to_the_pixels_of_the_whole(
    subsampling: str, height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jpeg_strips, "STRIP", 1)
    encode = JpegEncoder(90, subsampling)
    given = pictures(2, height, width)
    for threads in (1, 4, 7, 24):
        for jpeg, picture in zip(JpegPool(encode, threads)(given), given, strict=True):
            whole = encode(picture)
            assert (jpeg == whole) == (threads == 1)
            marked = with_comment(jpeg, "echomimic pts=8000")
            np.testing.assert_array_equal(decoded(marked), decoded(whole))
            other = np.asarray(Image.open(io.BytesIO(marked)))
            np.testing.assert_array_equal(other, np.asarray(Image.open(io.BytesIO(whole))))


def test_pictures_are_cut_only_for_threads_with_nothing_to_do() -> None:
    encode = JpegEncoder()
    small, large = pictures(2, 256, 256), pictures(2, 512, 512)
    assert JpegPool(encode, 8)(small) == [encode(picture) for picture in small]
    assert JpegPool(encode, 3)(large) == [encode(picture) for picture in large]
    assert b"\xff\xdd\x00\x04" in JpegPool(encode, 4)(large)[0][:700]
    assert JpegPool(encode, 4)(large[:0]) == []


def test_strips_end_where_blocks_do() -> None:
    for subsampling, (high, _) in BLOCK.items():
        for strips in (2, 3, 5):
            assert strip_rows(512, 512, strips, subsampling) % high == 0
    assert strip_rows(512, 512, 1, "444") == 512
    assert strip_rows(8, 512, 4, "444") == 8
    assert interval(256, 512, "444") == 2048 and interval(256, 500, "420") == 512
    assert strip_rows(8192, 8192, 2, "444") == 8192  # an interval is counted in 16 bits


def test_other_kinds_of_jpeg_stay_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.fromarray(pictures(1, 64, 64)[0]).save(buffer, "JPEG", progressive=True)
    with pytest.raises(ValueError, match="not a baseline JPEG"):
        joined([buffer.getvalue()] * 2, 128, 64)
    with pytest.raises(ValueError, match="not a baseline JPEG"):
        joined([b"\xff\xd8\xff", b""], 128, 64)

    def refused(*_: object) -> bytes:
        raise ValueError("not a baseline JPEG")

    monkeypatch.setattr(jpeg_strips, "joined", refused)
    encode = JpegEncoder()
    pool, given = JpegPool(encode, 4), pictures(2, 512, 512)
    for _ in range(2):
        assert pool(given) == [encode(picture) for picture in given]


def test_threads() -> None:
    assert [threads_for(cores, gpu=False) for cores in (1, 2, 4, 32)] == [1, 2, 4, 4]
    assert [threads_for(cores, gpu=True) for cores in (1, 4, 8, 12, 16, 64)] == [1, 4, 4, 6, 8, 8]
