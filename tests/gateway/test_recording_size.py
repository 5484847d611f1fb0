"""Recordings of pictures that change their size: each size has a file of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from encoder_worker.jpeg import JpegEncoder, with_segments
from encoder_worker.video import ENCODERS, ClipEncoder
from gateway.recording.part import RecordingPart
from gateway.recording.timeline import PicturePiece
from protocol.wire.browser import VideoMessage


@pytest.mark.parametrize("codec", ["jpeg", "h264", "vp8"])
def test_pictures_of_another_size_begin_another_file(tmp_path: Path, codec: str) -> None:
    small, large = (VideoMessage(data, codec=codec) for data in (key_frame(codec, 64), key_frame(codec, 128)))
    part = RecordingPart(tmp_path / "talk", small, 16000, 0, generated=True)
    part.add_picture(PicturePiece(0, small))
    assert part.fits(VideoMessage(key_frame(codec, 64), codec=codec)) and not part.fits(large)
    if codec != "jpeg":
        assert part.fits(VideoMessage(b"refers to another", codec=codec, key=False))
    part.finish()


def key_frame(codec: str, side: int) -> bytes:
    """A picture of noise."""
    pixels = np.random.default_rng(side).integers(0, 256, (1, side, side, 3), np.uint8)
    if codec == "jpeg":
        return with_segments(JpegEncoder(90)(pixels[0]), "echomimic pts=0", True)
    encoder = next(one for one in ENCODERS.values() if one.codec == codec)
    return ClipEncoder(encoder, (side, side), 24, generated=True)(pixels)[0].data
