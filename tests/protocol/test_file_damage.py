"""Files that are cut off, empty, or a web page under a file's name: each stage says so of any file."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gpu_worker.poses.track import PoseFileError, PoseTrack
from protocol.model.assets import AssetError
from protocol.model.file_damage import damage_error, stand_in_error
from protocol.model.pictures import read_picture
from protocol.process.settings import SettingsError
from tests.helpers.official_layout import write_official_layout
from tests.helpers.stage_loaders import load_audio_worker, load_encoder_worker, load_gpu_worker

PAGE = b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title></head><body>Please sign in.</body></html>\n"
CONFIG = "configs/prompts/infer_acc.yaml"
WEIGHTS = "pretrained_weights"
VAE = f"{WEIGHTS}/sd-vae-ft-mse"


WEIGHT_FILES: list[tuple[str, Callable[[Path], object]]] = [
    (f"{WEIGHTS}/denoising_unet_acc.pth", load_gpu_worker),
    (f"{WEIGHTS}/motion_module_acc.pth", load_gpu_worker),
    (f"{WEIGHTS}/reference_unet.pth", load_gpu_worker),
    (f"{WEIGHTS}/pose_encoder.pth", load_gpu_worker),
    (f"{VAE}/diffusion_pytorch_model.safetensors", load_encoder_worker),
    (f"{WEIGHTS}/audio_processor/tiny.pt", load_audio_worker),
]
TEXT_FILES: list[tuple[str, Callable[[Path], object]]] = [
    (CONFIG, load_audio_worker),
    ("configs/inference/inference_v2.yaml", load_gpu_worker),
    (f"{WEIGHTS}/sd-image-variations-diffusers/unet/config.json", load_gpu_worker),
    (f"{VAE}/config.json", load_encoder_worker),
]


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("official")
    write_official_layout(root)
    return root


def refusal(layout: Path, file: str, load: Callable[[Path], object], content: bytes) -> str:
    """The error of a stage that finds `content` in place of a file."""
    path = layout / file
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        with pytest.raises(SettingsError) as caught:
            load(layout / CONFIG)
    finally:
        path.write_bytes(whole)
    assert path.name in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("file", "load"), [*WEIGHT_FILES, *TEXT_FILES])
def test_a_web_page_and_an_empty_file(layout: Path, file: str, load: Callable[[Path], object]) -> None:
    assert "is a web page and not the file: remove it and download it again" in refusal(
        layout, file, load, PAGE
    )
    assert "is empty: remove it and download it again" in refusal(layout, file, load, b"")


@pytest.mark.parametrize(("file", "load"), WEIGHT_FILES)
@pytest.mark.parametrize("share", [0.999, 0.5, 0.01])
def test_a_download_that_was_cut_off(
    layout: Path, file: str, load: Callable[[Path], object], share: float
) -> None:
    whole = (layout / file).read_bytes()
    told = refusal(layout, file, load, whole[: int(len(whole) * share)])
    assert "is cut off: it has" in told and "download it again" in told


def test_whole_files_pass(layout: Path) -> None:
    for file, _ in (*WEIGHT_FILES, *TEXT_FILES):
        assert damage_error(layout / file) is None, file


def test_safetensors_of_every_length(tmp_path: Path, layout: Path) -> None:
    """No beginning of a file passes as whole, and no number of bytes makes the check itself fail."""
    whole = (layout / f"{VAE}/diffusion_pytorch_model.safetensors").read_bytes()
    file = tmp_path / "cut.safetensors"
    for size in (1, 7, 8, 9, 100, 5000, len(whole) - 1):
        file.write_bytes(whole[:size])
        assert "is cut off" in str(damage_error(file)), size
    for content in (b"\xff" * 64, b"\x02" + bytes(7) + b"{}", b"\x02" + bytes(7) + b"[]"):
        file.write_bytes(content)
        assert damage_error(file) is None  # the library's own words say more


def test_poses_and_pictures(tmp_path: Path) -> None:
    pose, picture = tmp_path / "pose.npz", tmp_path / "face.png"
    np.savez(pose, hands=np.zeros((3, 2, 21, 2), np.float32))
    pose.write_bytes(pose.read_bytes()[:-30])
    with pytest.raises(PoseFileError, match="is cut off"):
        PoseTrack.load(pose, (64, 64))
    for path in (pose, picture):
        path.write_bytes(PAGE)
    with pytest.raises(PoseFileError, match="is a web page"):
        PoseTrack.load(pose, (64, 64))
    with pytest.raises(AssetError, match="is a web page"):
        read_picture(picture)


def test_an_archive_that_seems_to_span_disks_is_damaged(tmp_path: Path) -> None:
    """Python's reader of zip raises an error of its own for it."""
    locator = b"PK\x06\x07" + struct.pack("<LQL", 1, 0, 2)
    end = b"PK\x05\x06" + bytes(18)
    (tmp_path / "a.pth").write_bytes(b"PK\x03\x04" + bytes(100) + locator + end)
    damage = damage_error(tmp_path / "a.pth")
    assert damage is not None and "is cut off" in damage


def test_a_missing_file_is_no_damage(tmp_path: Path) -> None:
    assert damage_error(tmp_path / "none.safetensors") is None
    assert stand_in_error(tmp_path) is None
