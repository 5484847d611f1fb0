"""Every stage says that Git LFS has not fetched a file, whichever file of a model it is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.model.lfs_pointer import lfs_pointer_error
from protocol.process.settings import SettingsError
from tests.helpers.official_layout import write_official_layout
from tests.helpers.stage_loaders import load_audio_worker, load_encoder_worker, load_gpu_worker

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 3400035733\n"
CONFIG = "configs/prompts/infer_acc.yaml"
VAE = "pretrained_weights/sd-vae-ft-mse"


@pytest.fixture(scope="module")
def layout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("official")
    write_official_layout(root)
    return root


@pytest.mark.parametrize(
    ("file", "load"),
    [
        (CONFIG, load_audio_worker),
        ("configs/inference/inference_v2.yaml", load_gpu_worker),
        ("pretrained_weights/denoising_unet_acc.pth", load_gpu_worker),
        ("pretrained_weights/motion_module_acc.pth", load_gpu_worker),
        ("pretrained_weights/reference_unet.pth", load_gpu_worker),
        ("pretrained_weights/pose_encoder.pth", load_gpu_worker),
        ("pretrained_weights/sd-image-variations-diffusers/unet/config.json", load_gpu_worker),
        (f"{VAE}/config.json", load_gpu_worker),
        (f"{VAE}/config.json", load_encoder_worker),
        (f"{VAE}/diffusion_pytorch_model.safetensors", load_gpu_worker),
        (f"{VAE}/diffusion_pytorch_model.safetensors", load_encoder_worker),
        ("pretrained_weights/audio_processor/tiny.pt", load_audio_worker),
    ],
)
def test_a_pointer_in_place_of_a_file(layout: Path, file: str, load: Callable[[Path], object]) -> None:
    path = layout / file
    content = path.read_bytes()
    path.write_text(POINTER)
    try:
        with pytest.raises(SettingsError) as caught:
            load(layout / CONFIG)
    finally:
        path.write_bytes(content)
    assert str(caught.value).endswith(f"{path.name}: is a Git LFS pointer: run git lfs pull")


def test_other_files_are_no_pointers(tmp_path: Path) -> None:
    for content in (b"", b"version https", b"version https://example.org/spec/v1\n"):
        (tmp_path / "file").write_bytes(content)
        assert lfs_pointer_error(tmp_path / "file") is None
    assert lfs_pointer_error(tmp_path) is None
    assert lfs_pointer_error(tmp_path / "none") is None
