"""Pictures that cannot be used: each fault has a sentence that names the file, and the rest is served."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gateway.thumbnails import avatar_png
from gpu_worker.avatars.store import fitted_picture
from protocol.model.assets import AssetError
from protocol.model.pictures import read_picture, require_picture
from protocol.wire.phrases import coded
from tests.helpers.picture_files import write
from tests.helpers.picture_kinds import KINDS, RED, png_of


def fault(path: Path) -> str:
    """The sentence of a picture that cannot be read. Both who read it say the same."""
    with pytest.raises(AssetError) as caught:
        fitted_picture(path, 16, 16)
    with pytest.raises(AssetError) as again:
        avatar_png(path, (16, 16))
    assert str(again.value) == str(caught.value)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize("kind", [k for k in KINDS if "bit" not in k and "clear" not in k])
def test_a_file_that_ends_too_early_is_named(tmp_path: Path, kind: str) -> None:
    """Cut anywhere, it is refused with a sentence, or shown where no pixel was lost."""
    whole = KINDS[kind][0](tmp_path / "whole").read_bytes()
    refused = 0
    for part in (0, 1, 4, 11, 24, 60, len(whole) // 2):
        path = tmp_path / "cut.png"
        path.write_bytes(whole[:part])
        try:
            read_picture(path)
        except AssetError as error:
            assert str(error).startswith(f"{path}: ")
            refused += 1
    assert refused >= 5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty; copy the picture again"),
        (b"hello world" * 100, "its format is unknown or its beginning is damaged; save it as PNG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is a file of the format HEIC; save it as PNG or JPEG"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "of the format HEIF"),
        (b"\xff\x0a\xfa\x7f", "of the format JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n", "of the format JPEG XL"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "of the format SVG"),
        (b"%PDF-1.7\n", "of the format PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "of the format PostScript"),
        (b"<!DOCTYPE html><html>", "is a web page and not the file"),
        (b"\0\0\0\x20ftypisom\0\0\2\0", "it is a video"),
        (b"\x1aE\xdf\xa3\x01\0\0\0", "it is a video"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "run git lfs pull"),
    ],
)
def test_what_is_no_picture_is_told_apart(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "face.png").write_bytes(content)
    text = fault(tmp_path / "face.png")
    assert words in text and str(coded(text)["code"]).startswith("picture_")


def test_a_picture_cut_in_its_pixels_is_to_be_copied_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    noise = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    for form in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "AVIF"):
        whole = write(tmp_path / "whole", noise, form).read_bytes()
        (tmp_path / "cut").write_bytes(whole[: len(whole) // 2])
        text = fault(tmp_path / "cut")
        assert "it is damaged or cut short" in text and "copy it again" in text, (form, text)
        assert coded(text)["code"] in ("picture_damaged", "picture_not_read")


@pytest.mark.parametrize("size", [(8001, 8001), (60_000, 60_000), (2**31 - 1, 2), (1, 2**31 - 1), (0, 5)])
def test_a_bomb_is_refused_by_its_header(tmp_path: Path, size: tuple[int, int]) -> None:
    (tmp_path / "bomb.png").write_bytes(png_of(b"\x08\x02", bytes(999), size=size))
    text = fault(tmp_path / "bomb.png")
    assert ("more than 64 million pixels; give a smaller picture" in text) == (0 not in size)


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (20_000, 1), (3, 8000)])
def test_tiny_and_thin_pictures_are_read(tmp_path: Path, size: tuple[int, int]) -> None:
    path = write(tmp_path / "p.png", Image.new("RGB", size, RED))
    assert read_picture(path).size == size
    assert (fitted_picture(path, 64, 48) == RED).all()


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "link.png").symlink_to("nowhere")
    assert fault(tmp_path / "pipe.png") == "is not a file"
    assert fault(tmp_path / "folder.png") == "is a folder, not a picture"
    assert fault(tmp_path / "link.png") == fault(tmp_path / "none.png") == "no such picture"


def test_a_picture_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "p.png", Image.new("RGB", (8, 8)))

    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Image, "open", refuse)
    assert "this user may not read it; give the right with chmod" in fault(path)


def test_one_good_picture_is_enough(tmp_path: Path) -> None:
    bad = [tmp_path / "none.png", tmp_path / "bad.png"]
    bad[1].write_bytes(b"?")
    with pytest.raises(AssetError, match=r"none\.png: no such picture or folder; .*bad\.png: cannot be read"):
        require_picture(bad)
    require_picture([*bad, write(tmp_path / "good.png", Image.new("RGB", (8, 8)))])
