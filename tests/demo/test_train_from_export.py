"""Training goes on from the weights that the repository ships."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from demo.factory.train.checkpoint import load_training
from demo.factory.train.export import export_model
from demo.factory.train.from_export import MODEL, start
from demo.factory.train.models import build_networks

FILES = ("denoising_unet", "motion_module", "reference_unet", "pose_encoder", "vae/diffusion_pytorch_model")


def test_a_state_of_the_export_exports_the_same_again(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    start(MODEL, tmp_path / "state")
    export_model(tmp_path / "state", tmp_path / "model")
    for file in FILES:
        ours, shipped = (load_file(folder / f"{file}.safetensors") for folder in (tmp_path / "model", MODEL))
        assert ours.keys() == shipped.keys()
        assert all(torch.equal(ours[key], shipped[key]) for key in shipped), file
    assert load_training(tmp_path / "state", "networks", build_networks()) == 0
    with pytest.raises(FileExistsError, match="another folder"):
        start(MODEL, tmp_path / "state")
