"""Training goes on from the weights that the repository ships."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from demo.factory.train.checkpoint import load_training
from demo.factory.train.config import VAE
from demo.factory.train.export import export_model
from demo.factory.train.from_export import MODEL, start, widened
from demo.factory.train.models import build_networks
from demo.factory.train.vae import AutoencoderLite
from encoder_worker.vae.lite_decoder import LiteDecoder

FILES = ("denoising_unet", "motion_module", "reference_unet", "pose_encoder", "vae/diffusion_pytorch_model")


def test_a_state_of_the_export_exports_the_same_again(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    start(MODEL, tmp_path / "state")
    export_model(tmp_path / "state", tmp_path / "model")
    for file in FILES:
        ours, shipped = (load_file(folder / f"{file}.safetensors") for folder in (tmp_path / "model", MODEL))
        assert ours.keys() == shipped.keys()
        for key, value in shipped.items():
            corner = tuple(slice(side) for side in value.shape)  # the finer head may have grown wider
            assert torch.equal(ours[key][corner], value), (file, key)
            assert ours[key].shape == value.shape or key.startswith("decoder.fine."), (file, key)
    assert load_training(tmp_path / "state", "networks", build_networks()) == 0
    with pytest.raises(FileExistsError, match="another folder"):
        start(MODEL, tmp_path / "state")


def test_a_wider_head_draws_the_same_pictures() -> None:
    torch.set_num_threads(1)
    old = AutoencoderLite()
    narrow = {**VAE, "fine_width": 4}
    old.decoder = LiteDecoder(narrow)
    new = AutoencoderLite()
    new.load_state_dict(widened(old.state_dict(), new))
    features = torch.randn(1, VAE["decoder_widths"][-1], 8, 8)
    assert old.decoder.fine is not None and new.decoder.fine is not None
    assert torch.allclose(new.decoder.fine(features), old.decoder.fine(features), atol=1e-6)
