"""An official folder loads completely, and every way of damaging it is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gpu_worker.avatars.vae_encoder import load_vae_encoder
from gpu_worker.denoiser.loading import Models, load_models
from protocol.model.config import ModelConfig
from protocol.model.vae_folder import VaeFolder
from protocol.process.settings import SettingsError
from tests.helpers.official_layout import WEIGHTS, write_official_layout

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
PTH = [name for name in WEIGHTS.values() if name.endswith(".pth")]


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a layout that tests only read."""
    root = tmp_path_factory.mktemp("official")
    write_official_layout(root)
    return root


@pytest.fixture
def copy(official: Path, tmp_path: Path) -> Path:
    """A layout that a test may damage. Unchanged files are links."""
    return Path(shutil.copytree(official, tmp_path / "copy", copy_function=_link))


def _link(source: str, target: str) -> None:
    Path(target).hardlink_to(source)


def load(root: Path, dtype: torch.dtype = torch.float32) -> Models:
    config = ModelConfig.load(root / "configs" / "prompts" / "infer_acc.yaml")
    return load_models(config, CPU, dtype)


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Replace a weights file by a changed one, without writing through its link."""
    state = torch.load(path, weights_only=True)
    change(state)
    path.unlink()
    torch.save(state, path)


def rewrite_json(path: Path, **changes: Any) -> None:
    values = {**json.loads(path.read_text()), **changes}
    path.unlink()
    path.write_text(json.dumps(values))


def test_every_weight_arrives(official: Path) -> None:
    models = load(official)
    weights = official / "pretrained_weights"
    files = {
        "denoising_unet_acc.pth": models.denoiser,
        "motion_module_acc.pth": models.denoiser,
        "reference_unet.pth": models.reference,
        "pose_encoder.pth": models.pose_encoder,
    }
    for name, module in files.items():
        state, loaded = torch.load(weights / name, weights_only=True), module.state_dict()
        assert all(torch.equal(loaded[key], value) for key, value in state.items()), name
    assert models.vae_encoder.scaling_factor == 0.18215
    assert (models.vae_encoder.factor, models.vae_encoder.channels) == (8, 4)
    for module in (*files.values(), models.vae_encoder):
        assert not module.training
        assert not any(p.requires_grad or p.is_meta for p in module.parameters())


def test_half_precision(official: Path) -> None:
    models = load(official, torch.bfloat16)
    assert {p.dtype for p in models.denoiser.state_dict().values()} == {torch.bfloat16}
    assert {p.dtype for p in models.vae_encoder.parameters()} == {torch.float32}


def test_safetensors_under_the_same_keys(tmp_path: Path) -> None:
    write_official_layout(tmp_path, suffix=".safetensors")
    assert load(tmp_path).config.denoising_unet_path.suffix == ".safetensors"


def test_motion_modules_in_the_denoiser_file(copy: Path) -> None:
    weights = copy / "pretrained_weights"
    motion = torch.load(weights / "motion_module_acc.pth", weights_only=True)
    rewrite(weights / "denoising_unet_acc.pth", lambda state: state.update(motion))
    load(copy)  # both files: the denoiser's values count, nothing is unexpected
    config = copy / "configs" / "prompts" / "infer_acc.yaml"
    values = yaml.safe_load(config.read_text())
    config.unlink()
    config.write_text(yaml.safe_dump({**values, "motion_module_path": None}))
    load(copy)


def test_position_tables_may_be_left_out(copy: Path) -> None:
    def drop(state: dict[str, Any]) -> None:
        for key in [key for key in state if key.endswith(".pe")]:
            del state[key]

    rewrite(copy / "pretrained_weights" / "motion_module_acc.pth", drop)
    table = load(copy).denoiser.state_dict()
    assert all(value.abs().sum() > 0 for key, value in table.items() if key.endswith(".pe"))


@pytest.mark.parametrize("name", WEIGHTS.values())
def test_file_that_is_missing(copy: Path, name: str) -> None:
    path = copy / name
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(SettingsError, match=f"infer_acc.yaml: .*: {name.removeprefix('./')} does not exist"):
        load(copy)


@pytest.mark.parametrize(
    "name",
    ["sd-vae-ft-mse/config.json", "sd-vae-ft-mse/diffusion_pytorch_model.safetensors",
     "sd-image-variations-diffusers/unet/config.json"],
)  # fmt: skip
def test_file_inside_a_folder_that_is_missing(copy: Path, name: str) -> None:
    (copy / "pretrained_weights" / name).unlink()
    with pytest.raises(SettingsError, match=name.split("/", maxsplit=1)[0]) as caught:
        load(copy)
    assert Path(name).name in str(caught.value)


@pytest.mark.parametrize("name", PTH)
def test_key_that_is_missing(copy: Path, name: str) -> None:
    gone: list[str] = []

    def drop(state: dict[str, Any]) -> None:
        gone.append(next(key for key in state if key.endswith("weight")))
        del state[gone[0]]

    rewrite(copy / name, drop)
    with pytest.raises(SettingsError) as caught:
        load(copy)
    assert Path(name).name in str(caught.value)
    assert f"missing key {gone[0]}" in str(caught.value)


@pytest.mark.parametrize("name", PTH)
def test_key_that_is_unexpected(copy: Path, name: str) -> None:
    rewrite(copy / name, lambda state: state.update({"extra.weight": torch.zeros(1)}))
    with pytest.raises(SettingsError, match=f"{Path(name).name}: unexpected key extra.weight"):
        load(copy)


@pytest.mark.parametrize("name", PTH)
def test_shape_that_is_wrong(copy: Path, name: str) -> None:
    def reshape(state: dict[str, Any]) -> None:
        key = next(key for key in state if key.endswith("weight"))
        state[key] = state[key].flatten()[:5].clone()

    rewrite(copy / name, reshape)
    with pytest.raises(
        SettingsError, match=rf"{Path(name).name}: .*weight has shape \(5,\), the model needs"
    ):
        load(copy)


@pytest.mark.parametrize("name", PTH)
def test_file_that_is_torn(copy: Path, name: str) -> None:
    content = (copy / name).read_bytes()
    (copy / name).unlink()
    (copy / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(SettingsError, match=f"{Path(name).name}: is (damaged|cut off)"):
        load(copy)


@pytest.mark.parametrize(
    ("file", "change", "words"),
    [
        ("sd-vae-ft-mse/config.json", {"_class_name": "Other"}, "_class_name: 'Other'"),
        ("sd-vae-ft-mse/config.json", {"latent_channels": None}, "not a configuration"),
        ("sd-vae-ft-mse/config.json", {"layers_per_block": 2}, "missing key"),
        ("sd-image-variations-diffusers/unet/config.json", {"in_channels": 8}, "in_channels are 8"),
        ("sd-image-variations-diffusers/unet/config.json", {"act_fn": "mish"}, "act_fn"),
        ("sd-image-variations-diffusers/unet/config.json", {"layers_per_block": 2}, "missing key"),
    ],
)
def test_config_that_is_wrong(copy: Path, file: str, change: dict[str, Any], words: str) -> None:
    rewrite_json(copy / "pretrained_weights" / file, **change)
    with pytest.raises(SettingsError, match=words):
        load(copy)


@pytest.mark.parametrize(
    ("section", "change", "words"),
    [
        ("noise_scheduler_kwargs", {"timestep_spacing": "odd"}, "timestep_spacing"),
        ("noise_scheduler_kwargs", {"betas": 3}, "betas is no option"),
        ("unet_additional_kwargs", {"motion_module_type": "Other"}, "motion_module_type"),
        ("pose_encoder_kwargs", {"block_out_channels": [16, 32]}, "2 times smaller, and the VAE 8"),
        ("pose_encoder_kwargs", {"layers": 3}, "layers"),
        ("pose_encoder_kwargs", {"conditioning_embedding_channels": 8}, "must be 32"),
    ],
)
def test_inference_config_that_is_wrong(copy: Path, section: str, change: dict[str, Any], words: str) -> None:
    path = copy / "configs" / "inference" / "inference_v2.yaml"
    values = yaml.safe_load(path.read_text())
    path.unlink()
    path.write_text(yaml.safe_dump({**values, section: {**values.get(section, {}), **change}}))
    with pytest.raises(SettingsError, match=words):
        load(copy)


def save_vae(folder: Path, config: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / "diffusion_pytorch_model.bin")


def test_tiny_autoencoder(tmp_path: Path) -> None:
    from diffusers import AutoencoderTiny

    vae: Any = AutoencoderTiny(
        encoder_block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        num_encoder_blocks=(1,) * 4,
        num_decoder_blocks=(1,) * 4,
    )
    vae.eval()
    save_vae(tmp_path, {**vae.config, "_class_name": "AutoencoderTiny"}, vae.state_dict())
    encoder = load_vae_encoder(VaeFolder.open(tmp_path))
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(encoder(picture), vae.encode(picture).latents)
    assert (encoder.factor, encoder.scaling_factor) == (8, 1.0)


def test_lite_autoencoder(tmp_path: Path) -> None:
    from gpu_worker.avatars.lite_encoder import LiteEncoder

    config = {
        "_class_name": "AutoencoderLite",
        "latent_channels": 16,
        "scaling_factor": 0.5,
        "encoder_widths": [8, 8, 16],
        "encoder_layers_per_block": 1,
        "norm_num_groups": 4,
    }
    lite = LiteEncoder(config)
    save_vae(tmp_path, config, {**lite.state_dict(), "decoder.conv.weight": torch.zeros(1)})
    encoder = load_vae_encoder(VaeFolder.open(tmp_path))
    picture = torch.rand(1, 3, 16, 16) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(encoder(picture), lite(picture) * 0.5)
    assert (encoder.factor, encoder.channels) == (4, 16)
