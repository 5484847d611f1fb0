"""`--passthrough`: latents of the size that the model's own would have."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from encoder_worker.vae.decoders import load_decoder
from gpu_worker.engine.passthrough import PassthroughEngine, latent_shape
from protocol.model.config import ModelConfig
from protocol.model.vae_folder import VaeFolder
from protocol.process.settings import Settings
from tests.gpu_worker.worker_process import clip


def test_the_bundled_model_s_latents_become_pictures_of_its_size() -> None:
    settings = Settings()
    config = ModelConfig.load(settings.config)
    decoder = load_decoder(VaeFolder.of(config))
    made = PassthroughEngine(settings).denoise(clip("a", 0, frames=6))
    assert made.shape[:2] == (6, decoder.channels)
    assert [side * decoder.factor for side in made.shape[2:]] == [config.height, config.width]


@pytest.mark.parametrize(
    ("name", "key", "widths", "side"),
    [
        ("AutoencoderKL", "block_out_channels", [8, 8, 8, 8], 32),
        ("AutoencoderTiny", "encoder_block_out_channels", [8, 8, 8], 64),
        ("AutoencoderLite", "encoder_widths", [8] * 5, 16),
    ],
)
def test_each_kind_of_vae_says_how_much_smaller_latents_are(
    tmp_path: Path, name: str, key: str, widths: list[int], side: int
) -> None:
    values = {"_class_name": name, key: widths, "latent_channels": 4}
    (tmp_path / "config.json").write_text(json.dumps(values))
    settings = replace(Settings(), width=512)
    config = replace(ModelConfig.load(settings.config), pretrained_vae_path=tmp_path)
    assert latent_shape(settings, config) == (4, side, 2 * side)
