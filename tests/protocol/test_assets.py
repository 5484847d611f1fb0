"""Avatars and poses: the gateway and the GPU worker find, name and read the same files in the same way."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gateway.thumbnails import MAX_SIDE, Thumbnails, avatar_png, card_size
from gpu_worker.avatars.store import AvatarStore, fitted_picture
from gpu_worker.engine.passthrough import PassthroughEngine
from protocol.model import assets, pictures
from protocol.model.assets import AssetError, avatar_paths, pose_paths
from protocol.model.pictures import read_picture
from protocol.process.settings import Settings

LFS_POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12\n"


def save(path: Path, color: object = "red", mode: str = "RGB", size: tuple[int, int] = (40, 20)) -> Path:
    Image.new(mode, size, color).save(path)  # type: ignore[arg-type]
    return path


def write_pose(path: Path) -> None:
    hands, score = np.zeros((2, 2, 21, 2), np.float32), np.ones((2, 2, 21), np.float32)
    np.savez(path, hands=hands, hands_score=score, fps=24)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Avatars and poses under names that must be changed, doubled and left out."""
    faces, poses, more = tmp_path / "faces", tmp_path / "poses", tmp_path / "more"
    for folder in (faces, poses, more):
        folder.mkdir()
    for name in ("my face (2).png", "b.JPG", "c.webp", "notes.txt"):
        save(faces / name) if name != "notes.txt" else (faces / name).touch()
    save(more / "b.png", "blue")
    for name in ("wave 1.npz", "rest.npz"):
        write_pose(poses / name)
    return replace(Settings(), reference_image=(faces, more), pose_dir=(poses,))


async def test_both_know_the_same_names(settings: Settings) -> None:
    cards, info = Thumbnails(settings), PassthroughEngine(settings).info()
    assert info["avatars"] == ["b", "c", "my_face__2_", "b-2"]
    assert info["poses"] == ["rest", "wave_1"]
    store = AvatarStore(avatar_paths(settings), 8, 8, lambda p: p, size_of=lambda _: 1, budget=10)
    assert store.names == info["avatars"]
    for name in store.names:
        assert await cards.avatar(name, (8, 8)) is not None
        red, _, blue = store.get(name)[0, 0]
        assert (red < blue) == (name == "b-2")
    for pose in ("rest", "wave_1"):
        assert await cards.pose(pose, live=False) is not None
    assert await cards.avatar("notes", (8, 8)) is None


async def test_both_find_and_read_by_this_module(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names and formats changed here change in both."""
    monkeypatch.setattr(assets, "PICTURE_SUFFIXES", (".webp",))
    monkeypatch.setattr(assets, "POSE_SUFFIXES", (".none",))
    monkeypatch.setattr(assets, "name_of", lambda path: f"named {path.stem}")
    store = AvatarStore(avatar_paths(settings), 8, 8, lambda p: p, size_of=lambda _: 1, budget=10)
    assert store.names == ["named c"]
    cards = Thumbnails(settings)
    assert await cards.avatar("named c", (8, 8)) is not None
    assert await cards.avatar("c", (8, 8)) is None
    assert await cards.pose("named rest", live=False) is None
    monkeypatch.setattr(pictures, "PICTURE_FORMATS", ("PNG",))
    path = avatar_paths(settings)[0] / "c.webp"
    for read in (lambda file: avatar_png(file, (8, 8)), lambda file: fitted_picture(file, 8, 8)):
        with pytest.raises(AssetError, match=r"c\.webp"):
            read(path)


def turned_and_clear(path: Path) -> Path:
    """Bright above, dark below, clear to the right; its EXIF data says that it stands on its head."""
    picture = Image.new("RGBA", (80, 80), (0, 0, 0, 255))
    picture.paste((0, 255, 0, 255), (0, 0, 80, 40))
    picture.paste((255, 0, 0, 0), (60, 0, 80, 80))
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180°
    picture.save(path, exif=exif)
    return path


def test_both_show_a_picture_upright_and_on_white(tmp_path: Path) -> None:
    path = turned_and_clear(tmp_path / "p.png")
    card = np.array(Image.open(io.BytesIO(avatar_png(path, (80, 80)))))
    worker = fitted_picture(path, 80, 80)
    assert card.shape == worker.shape == (80, 80, 3)
    assert np.array_equal(card, worker)
    assert (worker[:, :20] == 255).all()  # the clear part, now at the left
    assert (worker[:40, 20:] == 0).all()
    assert (worker[40:, 20:] == (0, 255, 0)).all()


@pytest.mark.parametrize(
    ("frame", "card"),
    [((768, 768), (512, 512)), ((256, 256), (256, 256)), ((512, 1024), (256, 512)), ((2048, 8), (512, 2))],
)
def test_a_card_has_the_shape_of_the_frames(
    tmp_path: Path, frame: tuple[int, int], card: tuple[int, int]
) -> None:
    path = save(tmp_path / "large.png", size=(4 * MAX_SIDE, MAX_SIDE))
    assert card_size(frame) == card
    assert Image.open(io.BytesIO(avatar_png(path, card))).size == card
    assert read_picture(path).size == (4 * MAX_SIDE, MAX_SIDE)


def portrait_with_a_head(path: Path, size: tuple[int, int], head: tuple[int, int, int, int]) -> Path:
    picture = Image.new("RGB", size, "white")
    picture.paste((200, 0, 0), head)
    picture.save(path)
    return path


@pytest.mark.parametrize(
    ("size", "head", "frame"),
    [
        ((1080, 1920), (300, 60, 780, 640), (768, 768)),  # a phone's portrait, the face in the upper third
        ((1080, 1920), (300, 0, 780, 640), (512, 512)),
        ((900, 1200), (250, 20, 650, 400), (256, 256)),
        ((600, 3000), (150, 30, 450, 500), (512, 512)),
        ((800, 800), (200, 20, 600, 300), (768, 512)),  # square, for wide frames
        ((1920, 1080), (700, 60, 1220, 640), (768, 768)),  # wide: the middle
        ((1920, 1080), (700, 60, 1220, 640), (512, 768)),
    ],
)
async def test_the_head_is_kept_and_the_card_shows_the_crop(
    tmp_path: Path, size: tuple[int, int], head: tuple[int, int, int, int], frame: tuple[int, int]
) -> None:
    path = portrait_with_a_head(tmp_path / "p.png", size, head)
    worker = fitted_picture(path, *frame)
    scale = max(frame[0] / size[0], frame[1] / size[1])
    wanted = (head[2] - head[0]) * (head[3] - head[1]) * scale**2
    assert (worker[:, :, 1] < 128).sum() == pytest.approx(wanted, rel=0.03)
    png = await Thumbnails(replace(Settings(), avatar_dir=tmp_path)).avatar("p", frame)
    assert png is not None
    card = Image.open(io.BytesIO(png))
    assert card.size == card_size(frame)
    seen = np.array(Image.fromarray(worker).resize(card.size, Image.Resampling.LANCZOS), np.int64)
    assert np.abs(seen - np.array(card)).mean() < 1


async def test_a_card_keeps_its_shape_while_no_worker_is_there(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    cards = Thumbnails(replace(Settings(), avatar_dir=tmp_path))
    assert await cards.avatar("a", (0, 0)) is None
    known = await cards.avatar("a", (64, 32))
    assert known is not None
    assert await cards.avatar("a", (0, 0)) == known
    assert await cards.avatar("a", (32, 64)) != known


def test_a_picture_that_is_an_lfs_pointer(tmp_path: Path) -> None:
    (tmp_path / "face.png").write_text(LFS_POINTER)
    with pytest.raises(AssetError, match=r"face\.png: is a Git LFS pointer: run git lfs pull"):
        read_picture(tmp_path / "face.png")


async def test_a_gateway_without_pictures_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = replace(Settings(), reference_image=(tmp_path / "gone.png",))
    assert await Thumbnails(settings).avatar("gone", (8, 8)) is None
    assert "gone.png: no such picture" in caplog.text
    assert pose_paths(settings)


def test_reading_pictures_needs_no_torch() -> None:
    code = "import sys, gateway.thumbnails; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
