"""Features on disk: the second start reads what the first one made, and notices what changed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gpu_worker import kept_features
from gpu_worker.avatars.store import AvatarStore
from gpu_worker.denoiser.model import ReferenceCache
from gpu_worker.denoiser.pipeline import AvatarCache
from gpu_worker.engine.serve import DenoiserEngine
from gpu_worker.engine.tensor_arrays import pack_avatar, unpack_avatar
from gpu_worker.kept_features import FeatureFolder, KeptPoses, KeptReferences
from gpu_worker.poses.host_memory import TensorMemory
from gpu_worker.poses.store import PoseStore
from protocol.process.settings import load_settings


class Avatars:
    """A store of two avatars over a folder of kept features, and how often features were made."""

    def __init__(self, pictures: Path, folder: Path, key: str = "model") -> None:
        self.made = 0
        self.store = AvatarStore(
            [pictures],
            16,
            16,
            self.prepare,
            size_of=lambda made: made.reference.nbytes,
            budget=1 << 20,
            kept=KeptReferences(FeatureFolder(folder, key), pack_avatar, unpack_avatar),
        )

    def prepare(self, picture: np.ndarray) -> AvatarCache:
        self.made += 1
        values = torch.from_numpy(picture[:4, :, 0].copy()).to(torch.bfloat16)[None]
        return AvatarCache(
            values.float(), ReferenceCache(((values, values + 1), (values + 2, values[:, :2])))
        )


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, name in enumerate(("ann", "ben")):
        Image.new("RGB", (16, 16), (50 * number + 10, 0, 0)).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "features"
    made.mkdir()
    return made


def test_the_second_start_reads_the_references(pictures: Path, folder: Path) -> None:
    first, second = Avatars(pictures, folder), Avatars(pictures, folder)
    made = first.store.get("ann")
    while first.store.warm_one():
        pass
    assert (first.made, len(first.store)) == (2, 1)  # ben's lie on disk alone
    assert not second.store.warm_one()
    read = second.store.get("ann")
    assert second.made == 0
    assert torch.equal(read.latents, made.latents)
    for pair, wanted in zip(read.reference.layers, made.reference.layers, strict=True):
        assert [x.dtype for x in pair] == [torch.bfloat16] * 2
        assert all(map(torch.equal, pair, wanted))
    assert not torch.equal(second.store.get("ben").latents, read.latents)


def test_another_model_and_another_picture_have_features_of_their_own(pictures: Path, folder: Path) -> None:
    Avatars(pictures, folder).store.get("ann")
    other = Avatars(pictures, folder, key="other")
    other.store.get("ann")
    assert other.made == 1
    Image.new("RGB", (16, 16), (99, 0, 0)).save(pictures / "ann.png")
    changed = Avatars(pictures, folder)
    changed.store.get("ann")
    assert changed.made == 1


def test_damaged_features_are_made_anew(
    pictures: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = Avatars(pictures, folder).store.get("ann")
    (file,) = folder.iterdir()
    file.write_bytes(b"damaged")
    again = Avatars(pictures, folder)
    assert torch.equal(again.store.get("ann").latents, made.latents)
    assert again.made == 1
    assert "made anew" in caplog.text
    third = Avatars(pictures, folder)
    third.store.get("ann")
    assert third.made == 0


def test_features_that_cannot_be_written_stay_in_memory(
    pictures: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(file: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kept_features, "write_whole", full)
    avatars = Avatars(pictures, folder)
    while avatars.store.warm_one():
        pass
    assert len(avatars.store) == 2
    made = avatars.made
    avatars.store.get("ben")
    assert avatars.made == made
    assert "not kept for the next start" in caplog.text


def test_the_least_used_features_make_room(
    pictures: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = folder / "holiday.safetensors"
    theirs.write_bytes(bytes(5000))
    monkeypatch.setattr(kept_features, "MOST_BYTES", 1)
    avatars = Avatars(pictures, folder)
    avatars.store.get("ann")
    avatars.store.get("ben")
    assert theirs.exists()
    assert len(list(folder.glob("reference-*"))) == 1


# ------------------------------------------------------------------ poses


class Loop:
    """A pose of ten frames."""

    fps = 24

    def __len__(self) -> int:
        return 10

    def draw(self, indices: Sequence[int]) -> np.ndarray:
        frames = np.array(indices, np.float32).reshape(-1, 1, 1, 1)
        return frames * np.ones((1, 3, 2, 2), np.float32)


def pose_store(
    pose: Path, folder: Path, encoded: list[int], budget: int = 1 << 20
) -> PoseStore[torch.Tensor]:
    def encode(maps: np.ndarray) -> torch.Tensor:
        encoded.append(len(maps))
        return torch.from_numpy(maps).to(torch.bfloat16) * 2

    kept, memory = KeptPoses(FeatureFolder(folder, "model")), TensorMemory()
    return PoseStore([pose], lambda _: Loop(), encode, memory, budget=budget, batch=4, kept=kept)


def test_a_whole_pose_moves_to_disk(tmp_path: Path, folder: Path) -> None:
    pose = tmp_path / "wave.npz"
    pose.write_bytes(b"a pose")
    encoded: list[int] = []
    first = pose_store(pose, folder, encoded)
    before = first.gather("wave", [3, 9, 0])
    while first.warm_some("wave"):
        pass
    assert sum(encoded) == 10
    assert first.bytes == 0
    second = pose_store(pose, folder, encoded)
    assert not second.warm_some("wave")
    for store in (first, second):
        assert torch.equal(store.gather("wave", [3, 9, 0]), before)
    assert sum(encoded) == 10
    pose.write_bytes(b"another pose")
    assert pose_store(pose, folder, encoded).warm_some("wave")
    assert sum(encoded) == 14


def test_a_pose_beyond_the_budget_is_not_kept(tmp_path: Path, folder: Path) -> None:
    pose = tmp_path / "wave.npz"
    pose.write_bytes(b"a pose")
    store = pose_store(pose, folder, [], budget=100)
    while store.warm_some("wave"):
        pass
    assert not list(folder.iterdir())
    assert store.gather("wave", [9])[0, 0, 0, 0] == 18


# ------------------------------------------------------------------ the engine, with the bundled model


@pytest.mark.slow
def test_the_second_start_times_and_encodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr("gpu_worker.engine.serve.POSE_WARM_SECONDS", {"cpu": 0.0})
    picture = tmp_path / "one.png"
    Image.new("RGB", (64, 64), (90, 60, 30)).save(picture)
    flags = ["--gpu-devices", "cpu", "--threads", "1", "--dtype", "float32", "--fps", "24"]
    flags += ["--clip-frames", "4", "--width", "64", "--height", "64", "--cpu-engine", "openvino"]
    settings = load_settings([*flags, "--reference-image", str(picture)], env={})

    def latents() -> np.ndarray:
        engine = DenoiserEngine(settings)
        engine.load()
        assert engine.info()["cpu_engine"] == "openvino"
        made = [engine.denoise(engine.prepare(engine.trial_clip("one", seq, 24))) for seq in range(2)]
        return np.stack(made)

    first = latents()

    def never(*_: Any, **__: Any) -> Any:
        pytest.fail("done a second time")

    monkeypatch.setattr("protocol.model.cpu_graph.keep_graph", never)
    monkeypatch.setattr("gpu_worker.engine.shipped_networks.ShippedNetworks.reference", never)
    assert np.array_equal(latents(), first)
