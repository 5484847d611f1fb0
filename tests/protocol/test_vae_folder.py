"""One registry of VAE folders: both workers build their half of the same class from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from encoder_worker.vae.decoders import DECODERS, load_decoder
from encoder_worker.worker import EncoderWorker
from gpu_worker.avatars.vae_encoder import ENCODERS
from gpu_worker.denoiser.loading import load_models
from protocol.model.config import ConfigError, ModelConfig
from protocol.model.vae_folder import VAE_CLASSES, VaeFolder, latent_scaling
from protocol.process.settings import load_settings
from protocol.process.stage import Stage
from tests.encoder_worker.test_worker import FakeStage
from tests.helpers.official_layout import write_official_layout

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
SIDE = 64


def write_model(folder: Path, class_name: str | None, vae_class: str) -> tuple[Path, Any]:
    """An official layout with another class name in its VAE's config.json; the VAE as diffusers has it."""
    config = write_official_layout(folder, width=SIDE, height=SIDE, steps=1, vae_class=vae_class)
    vae_folder = folder / "pretrained_weights" / "sd-vae-ft-mse"
    vae = AutoencoderKL.from_pretrained(vae_folder).eval()
    values = json.loads((vae_folder / "config.json").read_text())
    del values["_class_name"]
    values.pop("scaling_factor", None)
    if class_name is not None:
        values["_class_name"] = class_name
    (vae_folder / "config.json").write_text(json.dumps(values))
    return config, vae


@pytest.mark.parametrize("class_name", [None, "AutoencoderTiny", "MyVae"])
@torch.inference_mode()
def test_the_configurations_class_counts_in_both_workers(tmp_path: Path, class_name: str | None) -> None:
    path, vae = write_model(tmp_path, class_name, "AutoencoderKL")
    models = load_models(ModelConfig.load(path), CPU, torch.float32)
    picture = torch.rand(1, 3, SIDE, SIDE) * 2 - 1
    latents = models.vae_encoder(picture)
    # The class decides the scaling too, since this config.json does not state it.
    torch.testing.assert_close(latents, vae.encode(picture).latent_dist.mean * 0.18215)

    settings = load_settings(["--config", str(path), "--gpu-devices", "cpu", "--dtype", "float32"], {})
    worker = EncoderWorker(settings, cast("Stage", FakeStage()))
    worker.warm_up()
    assert worker.info()["vae"] == "AutoencoderKL"
    given = latents.half().numpy()
    (pixels,) = worker._decoder.decode(given)  # type: ignore[union-attr]
    wanted = vae.decode(torch.from_numpy(given).float() / 0.18215).sample[0].permute(1, 2, 0)
    assert np.abs(pixels[0] - ((wanted + 1) * 127.5).clamp(0, 255).numpy()).max() <= 1


def test_without_the_configurations_word_the_folders_class_counts(tmp_path: Path) -> None:
    path, _ = write_model(tmp_path, "MyVae", "")
    for load in (
        lambda: load_models(ModelConfig.load(path), CPU, torch.float32),
        lambda: load_decoder(VaeFolder.of(ModelConfig.load(path))),
    ):
        with pytest.raises(ConfigError, match=r"config\.json: _class_name: 'MyVae' is not one of"):
            load()


def test_an_unknown_class_of_the_configuration_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKL"}')
    with pytest.raises(ConfigError, match="vae_class: 'VQModel' is not one of"):
        VaeFolder.open(tmp_path, "VQModel")


def test_both_workers_build_every_class() -> None:
    assert set(ENCODERS) == set(DECODERS) == set(VAE_CLASSES)


@pytest.mark.parametrize(
    ("config", "scaling"),
    [
        ({"_class_name": "AutoencoderKL"}, (0.18215, 0.0)),
        ({"_class_name": "AutoencoderTiny"}, (1.0, 0.0)),
        ({"_class_name": "AutoencoderKL", "scaling_factor": 0.36, "shift_factor": 0.1}, (0.36, 0.1)),
        ({"_class_name": "AutoencoderLite", "scaling_factor": None}, (1.0, 0.0)),
    ],
)
def test_scaling(config: dict[str, Any], scaling: tuple[float, float]) -> None:
    assert latent_scaling(config) == scaling


def test_halves_of_different_sizes_are_refused(tmp_path: Path) -> None:
    widths = {"encoder_widths": [8, 8, 8], "decoder_widths": [8, 8]}
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderLite", **widths}))
    assert VaeFolder.open(tmp_path).factor == 4
    widths["decoder_widths"] = [8, 8, 8]
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "AutoencoderLite", **widths}))
    with pytest.raises(ConfigError, match="4 times by encoder_widths and 8 times by decoder_widths"):
        _ = VaeFolder.open(tmp_path).factor
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderTiny"}')
    with pytest.raises(ConfigError, match="encoder_block_out_channels is missing"):
        _ = VaeFolder.open(tmp_path).factor
    with pytest.raises(ConfigError, match=r"config\.json: latent_channels: None"):
        _ = VaeFolder.open(tmp_path).latent_channels
