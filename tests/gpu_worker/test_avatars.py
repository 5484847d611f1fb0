"""Avatars and poses: the files, their errors, and the features kept of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gpu_worker.avatars.store import AvatarStore, fitted_picture
from gpu_worker.engine_api import ClipError
from gpu_worker.poses import host_memory
from gpu_worker.poses.host_memory import HostMemory, TensorMemory
from gpu_worker.poses.store import ArrayMemory, FeatureMemory, PoseStore
from protocol.model.assets import PICTURE_SUFFIXES, AssetError, name_of, named_files


def save(
    path: Path, size: tuple[int, int] = (40, 30), color: object = "red", mode: str = "RGB", **kwargs: object
) -> Path:
    Image.new(mode, size, color).save(path, **kwargs)  # type: ignore[arg-type]
    return path


def test_picture_is_cropped_in_the_middle_and_resized(tmp_path: Path) -> None:
    picture = Image.new("RGB", (300, 100), "black")
    picture.paste((255, 0, 0), (100, 0, 200, 100))
    picture.save(tmp_path / "wide.png")
    array = fitted_picture(tmp_path / "wide.png", 64, 64)
    assert array.shape == (64, 64, 3)
    assert array.dtype == np.uint8
    assert (array[:, 4:-4] == (255, 0, 0)).all()


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    assert fitted_picture(save(tmp_path / f"a.{suffix}"), 16, 24).shape == (24, 16, 3)


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    save(tmp_path / "clear.png", color=(0, 0, 0, 0), mode="RGBA")
    assert (fitted_picture(tmp_path / "clear.png", 16, 16) == 255).all()


def test_grey_and_palette_pictures_are_read(tmp_path: Path) -> None:
    for mode in ("L", "P", "1", "LA", "I;16"):
        save(tmp_path / "p.png", mode=mode, color=0)
        assert fitted_picture(tmp_path / "p.png", 16, 16).shape == (16, 16, 3)


def test_orientation_of_a_photo_is_followed(tmp_path: Path) -> None:
    picture = Image.new("RGB", (60, 60), "black")
    picture.paste((255, 255, 255), (0, 0, 60, 30))  # bright above
    exif = Image.Exif()
    exif[0x0112] = 3  # turned by 180°
    picture.save(tmp_path / "turned.png", exif=exif)
    array = fitted_picture(tmp_path / "turned.png", 60, 60)
    assert array[5].mean() < 10
    assert array[-5].mean() > 245


def _bomb(path: Path) -> None:
    save(path, size=(30000, 3000), mode="1", color=0)


def _damage(path: Path, data: bytes) -> None:
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: _damage(p, b""), "is empty"),
        (lambda p: _damage(p, b"hello world" * 100), "its format is unknown"),
        (lambda p: _damage(p, save(p, size=(200, 200), color=(1, 2, 3)).read_bytes()[:90]), "cannot be read"),
        (_bomb, "more than 64 million"),
        (lambda p: p.mkdir(), "is a folder"),
        (lambda p: None, "no such picture"),
    ],
)
def test_a_bad_picture_is_an_error_that_names_it(tmp_path: Path, make: object, words: str) -> None:
    path = tmp_path / "face.png"
    make(path)  # type: ignore[operator]
    with pytest.raises(AssetError, match=words) as caught:
        fitted_picture(path, 16, 16)
    assert str(path) in str(caught.value)


def test_a_large_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("protocol.model.pictures.MAX_PICTURE_BYTES", 10)
    with pytest.raises(AssetError, match="smaller"):
        fitted_picture(save(tmp_path / "a.png"), 16, 16)


def test_names_are_ids(tmp_path: Path) -> None:
    assert name_of(Path("x/my face (2).png")) == "my_face__2_"
    assert len(name_of(Path("a" * 200 + ".png"))) == 64
    for name in ("b.png", "a.jpg", "notes.txt", "a.png"):
        (tmp_path / name).touch()
    assert list(named_files([tmp_path], PICTURE_SUFFIXES, "picture")) == ["a", "a-2", "b"]
    assert list(named_files([tmp_path / "b.png", tmp_path], PICTURE_SUFFIXES, "picture")) == ["b", "a", "a-2"]
    with pytest.raises(AssetError, match=r"none\.png: no such picture"):
        named_files([tmp_path / "none.png"], PICTURE_SUFFIXES, "picture")
    with pytest.raises(AssetError, match="no pose"):
        named_files([tmp_path], (".npz",), "pose")


@pytest.fixture
def store(tmp_path: Path) -> tuple[AvatarStore[int], list[np.ndarray]]:
    made: list[np.ndarray] = []

    def prepare(picture: np.ndarray) -> int:
        made.append(picture)
        return len(made)

    for i, name in enumerate("abc"):
        save(tmp_path / f"{name}.png", color=(10 * i, 0, 0))
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return AvatarStore([tmp_path], 16, 16, prepare, size_of=lambda _: 10, budget=25), made


def test_reference_is_made_once_and_the_least_used_makes_room(
    store: tuple[AvatarStore[int], list[np.ndarray]],
) -> None:
    avatar, made = store
    assert avatar.names == ["a", "b", "c"]
    assert [avatar.get(name) for name in ("a", "b", "a", "default")] == [1, 2, 1, 1]
    assert (avatar.hits, avatar.misses, len(avatar), avatar.bytes) == (2, 2, 2, 20)
    assert avatar.get("c") == 3
    assert avatar.get("a") == 1
    assert avatar.get("b") == 4
    assert [int(picture[0, 0, 0]) for picture in made] == [0, 10, 20, 10]


def test_unknown_avatar_ends_the_session_and_lists_what_there_is(
    store: tuple[AvatarStore[int], list[np.ndarray]],
) -> None:
    with pytest.raises(ClipError, match="no avatar zoe; there are a, b, c") as caught:
        store[0].get("zoe")
    assert caught.value.fatal


def test_a_picture_that_went_bad_later_is_the_sessions_error(
    store: tuple[AvatarStore[int], list[np.ndarray]], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(b"gone")
    with pytest.raises(ClipError, match=r"a\.png"):
        store[0].get("a")
    assert store[0].get("b") == 1


def test_warming_stops_when_full(store: tuple[AvatarStore[int], list[np.ndarray]]) -> None:
    assert [store[0].warm_one() for _ in range(4)] == [True, True, False, False]


def test_no_readable_picture_at_all(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"?")
    with pytest.raises(AssetError, match=r"x\.png"):
        AvatarStore([tmp_path], 16, 16, lambda picture: 0, size_of=lambda _: 0, budget=0)


class FakeTrack:
    fps = 24

    def __init__(self, frames: int) -> None:
        self._frames = frames

    def __len__(self) -> int:
        return self._frames

    def draw(self, indices: Sequence[int]) -> np.ndarray:
        return np.ones((1, 3, 4, 4), np.float32) * np.array(indices, np.float32).reshape(-1, 1, 1, 1)


def _load(path: Path) -> FakeTrack:
    text = path.read_text()
    if not text:
        raise ValueError("empty")
    return FakeTrack(int(text))


def pose_store(
    folder: Path, budget: int = 1 << 20, memory: FeatureMemory[Any] | None = None
) -> tuple[PoseStore[Any], list[int]]:
    """A store of arrays, or of tensors where their memory is given."""
    encoded: list[int] = []

    def encode(maps: np.ndarray) -> Any:
        encoded.extend(int(value) for value in maps[:, 0, 0, 0])
        features = maps[:, :2, ::2, ::2] + 100
        return features if memory is None else torch.from_numpy(features)

    (folder / "talk.npz").write_text("30")
    (folder / "wave.npz").write_text("7")
    (folder / "bad.npz").write_text("")
    return PoseStore([folder], _load, encode, memory or ArrayMemory(), budget=budget, batch=4), encoded


def test_pose_features_are_encoded_once(tmp_path: Path) -> None:
    poses, encoded = pose_store(tmp_path)
    assert poses.names == ["talk", "wave"]
    first = poses.gather("talk", [28, 29, 0, 1, 28])
    assert first.shape == (5, 2, 2, 2)
    assert first[:, 0, 0, 0].tolist() == [128, 129, 100, 101, 128]
    assert sorted(encoded) == [0, 1, 28, 29]
    again = poses.gather("default", [0, 28, 2])
    assert again[:, 0, 0, 0].tolist() == [100, 128, 102]
    assert sorted(encoded) == [0, 1, 2, 28, 29]


def test_warming_a_pose_encodes_every_frame_in_batches(tmp_path: Path) -> None:
    poses, encoded = pose_store(tmp_path)
    rounds = 0
    while poses.warm_some("talk"):
        rounds += 1
    assert rounds == 8
    assert encoded == list(range(30))
    poses.gather("talk", range(30))
    assert len(encoded) == 30


def test_a_full_cache_still_serves(tmp_path: Path) -> None:
    poses, encoded = pose_store(tmp_path, budget=3 * 2 * 2 * 2 * 4)
    for _ in range(3):
        features = poses.gather("talk", range(6))
        assert features[:, 0, 0, 0].tolist() == [100 + i for i in range(6)]
    assert poses.bytes == 3 * 2 * 2 * 2 * 4
    assert len(encoded) == 6 + 3 + 3
    assert not poses.warm_some("wave")


def test_frames_that_a_clip_will_need_are_encoded_a_few_at_a_time(tmp_path: Path) -> None:
    poses, encoded = pose_store(tmp_path)
    poses.gather("talk", [3])
    assert poses.warm_frames("talk", [5, 3, 4, 6])
    assert encoded == [3, 4, 5]
    assert poses.warm_frames("default", [5, 3, 4, 6])
    assert not poses.warm_frames("talk", [5, 3, 4, 6])
    poses.gather("talk", [3, 4, 5, 6])
    assert encoded == [3, 4, 5, 6]
    full, encoded = pose_store(tmp_path, budget=0)
    assert not full.warm_frames("talk", [1])
    assert encoded == []


@pytest.mark.parametrize("memory", [HostMemory(torch.device("cpu")), TensorMemory()])
def test_features_in_the_hosts_memory_are_the_same(tmp_path: Path, memory: TensorMemory) -> None:
    frame = 2 * 2 * 2 * 4
    here, _ = pose_store(tmp_path)
    there, encoded = pose_store(tmp_path, budget=20 * frame, memory=memory)
    for indices in ([28, 29, 0, 1, 28], list(range(30)), [7, 3, 3], list(range(30))):
        assert np.array_equal(there.gather("talk", indices).numpy(), here.gather("talk", indices))
    assert there.bytes == 20 * frame
    assert there.misses == 30 + 10
    assert len(encoded) == there.misses


def test_both_threads_fill_the_hosts_memory(tmp_path: Path) -> None:
    """The prefetch thread works in inference mode, and the compute thread in its pauses does not."""
    poses, _ = pose_store(tmp_path, memory=HostMemory(torch.device("cpu")))
    with torch.inference_mode():
        poses.gather("talk", [1, 2])
    while poses.warm_some("talk"):
        pass
    with torch.inference_mode():
        assert poses.gather("talk", [1, 29])[:, 0, 0, 0].tolist() == [101, 129]
        poses.gather("wave", [1])
    assert poses.misses == 3


def test_features_fill_blocks_of_the_hosts_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory, "BLOCK_BYTES", 100)
    host = HostMemory(torch.device("cpu"))
    kept = [host.keep(torch.full((2, 2, 2), float(i))) for i in range(7)]
    assert host.join(kept)[:, 0, 0, 0].tolist() == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    blocks = {feature.untyped_storage().data_ptr() for feature in kept}
    assert len(blocks) == 3  # of three frames of 32 bytes


def test_unknown_pose(tmp_path: Path) -> None:
    poses, _ = pose_store(tmp_path)
    with pytest.raises(ClipError, match="no pose jump; there are talk, wave") as caught:
        poses.gather("jump", [0])
    assert caught.value.fatal


def test_a_missing_pose_is_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "wave.npz").write_text("7")
    poses = PoseStore(
        [tmp_path / "gone", tmp_path / "wave.npz"],
        _load,
        lambda maps: maps,
        ArrayMemory(),
        budget=1 << 20,
        batch=4,
    )
    assert poses.names == ["wave"]
    assert f"left out: {tmp_path}/gone: no such pose or folder" in caplog.text


def test_no_usable_pose_at_all(tmp_path: Path) -> None:
    (tmp_path / "bad.npz").write_text("")
    with pytest.raises(AssetError, match=r"bad\.npz: not a pose file"):
        PoseStore([tmp_path], _load, lambda maps: maps, ArrayMemory(), budget=0)


def test_frame_indices_follow_the_clock(tmp_path: Path) -> None:
    poses, _ = pose_store(tmp_path)
    assert poses.frame_indices("talk", 0, 24, 4) == [0, 1, 2, 3]
    assert poses.frame_indices("talk", 8000, 24, 3) == [12, 13, 14]
    assert poses.frame_indices("talk", 8000, 12, 3) == [12, 14, 16]
    assert poses.frame_indices("talk", 8000, 8, 3) == [12, 15, 18]
    assert poses.frame_indices("wave", 0, 24, 9) == [0, 1, 2, 3, 4, 5, 6, 0, 1]


@pytest.fixture(scope="module")
def poses(tmp_path_factory: pytest.TempPathFactory) -> PoseStore[Any]:
    return pose_store(tmp_path_factory.mktemp("poses"))[0]


@given(st.integers(0, 2**40), st.integers(1, 60), st.integers(1, 32))
def test_frame_indices_never_drift(poses: PoseStore[Any], pts: int, fps: int, count: int) -> None:
    for i, index in enumerate(poses.frame_indices("talk", pts, fps, count)):
        exact = pts * 24 / 16000 + i * 24 / fps
        error = (index - exact + 15) % 30 - 15
        assert abs(error) <= 0.5 + 1e-3
