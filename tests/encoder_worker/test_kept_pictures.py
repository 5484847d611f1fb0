"""Coded pictures of silent clips on disk."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from encoder_worker.kept_clips import Coded
from encoder_worker.kept_pictures import KEPT_NAME, KeptPictures
from encoder_worker.video import CodedPicture
from protocol.model.config import ModelConfig
from protocol.model.vae_folder import VaeFolder
from protocol.process.settings import load_settings
from protocol.wire.video import H264, JPEG

PARTS: list[Coded] = [
    ((8, 6), [CodedPicture(b"one"), CodedPicture(b"two", JPEG, True)]),
    ((8, 6), [CodedPicture(b"three")]),
]


class Maker:
    """Counts how often a clip is coded."""

    def __init__(self, parts: list[Coded] = PARTS) -> None:
        self.parts = parts
        self.made = 0

    def __call__(self) -> Iterator[Coded]:
        self.made += 1
        yield from self.parts


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_next_start_and_another_encoder_read_what_one_made(tmp_path: Path) -> None:
    make = Maker()
    for number in range(3):
        folder = KeptPictures(tmp_path, "model")
        assert list(folder.through((b"a", "jpeg 24 "), make, JPEG)) == PARTS
        assert folder.hits == min(number, 1)
    assert make.made == 1
    (file,) = tmp_path.iterdir()
    assert KEPT_NAME.fullmatch(file.name) and stat.S_IMODE(file.stat().st_mode) == 0o600


def test_another_model_clip_or_codec_has_a_file_of_its_own(tmp_path: Path) -> None:
    make = Maker()
    for model, key in (("one", (b"a", "jpeg")), ("two", (b"a", "jpeg")), ("one", (b"b", "jpeg"))):
        list(KeptPictures(tmp_path, model).through(key, make, JPEG))
    list(KeptPictures(tmp_path, "one").through((b"a", "h264"), make, JPEG))
    assert make.made == len(names(tmp_path)) == 4


def test_a_clip_that_was_not_taken_whole_or_is_in_another_codec_is_not_kept(tmp_path: Path) -> None:
    folder = KeptPictures(tmp_path, "model")
    assert next(folder.through((b"a", "jpeg"), Maker(), JPEG)) == PARTS[0]
    assert list(folder.through((b"a", "h264"), Maker(), H264)) == PARTS
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "content", [b"", b"\xc1", b"\x93\x01", b"\x91\x93\x08\x06\x91\x93\x01\x02\x03", b"\x90"]
)
def test_a_damaged_file_is_made_anew(tmp_path: Path, content: bytes) -> None:
    make = Maker()
    list(KeptPictures(tmp_path, "model").through((b"a", "jpeg"), make, JPEG))
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    for _ in range(2):
        assert list(KeptPictures(tmp_path, "model").through((b"a", "jpeg"), make, JPEG)) == PARTS
    assert make.made == 2


def test_files_that_were_not_used_for_longest_make_room_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "mine.pictures").write_bytes(bytes(1000))
    parts: list[Coded] = [((8, 8), [CodedPicture(bytes(100))])]
    folder = KeptPictures(tmp_path, "model", most_bytes=500)
    for number, name in enumerate((b"a", b"b", b"c")):
        list(folder.through((name, "jpeg"), Maker(parts), JPEG))
        newest = max(tmp_path.iterdir(), key=lambda path: path.stat().st_ctime_ns)
        os.utime(newest, (number, number))
    list(folder.through((b"a", "jpeg"), Maker(parts), JPEG))  # used again
    for name in (b"d", b"e"):
        list(folder.through((name, "jpeg"), Maker(parts), JPEG))
    again = Maker(parts)
    for name, made in ((b"a", 0), (b"e", 0), (b"b", 1)):
        list(folder.through((name, "jpeg"), again, JPEG))
        assert again.made == made
    assert (tmp_path / "mine.pictures").stat().st_size == 1000
    kept = [path for path in tmp_path.iterdir() if KEPT_NAME.fullmatch(path.name)]
    assert sum(path.stat().st_size for path in kept) <= 500


def test_a_folder_that_cannot_be_written_costs_no_picture(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = KeptPictures(tmp_path / "is not there", "model")
    for _ in range(3):
        assert list(folder.through((b"a", "jpeg"), Maker(), JPEG)) == PARTS
    assert caplog.text.count("are not kept") == 1


def test_a_cpu_keeps_them_by_what_they_depend_on_and_a_gpu_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))

    def keys(*flags: str, coded_by: str = "x") -> KeptPictures | None:
        settings = load_settings(["--gpu-devices", "cpu", *flags], {})
        config = ModelConfig.load(settings.config)
        return KeptPictures.of(settings, config, VaeFolder.of(config), coded_by)

    make = Maker()
    for folder in (keys(), keys(), keys(coded_by="y"), keys("--dtype", "float32")):
        assert folder is not None
        list(folder.through((b"a", "jpeg"), make, JPEG))
    assert make.made == 3
    assert keys("--gpu-devices", "cuda:0", "--encoder-devices", "cuda:0") is None
