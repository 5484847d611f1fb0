"""Shared by the gpu_worker tests: one core, and the tiny modules of the golden runs with their weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import torch

from gpu_worker.denoiser.model import DenoisingUNet3D, PoseEncoder, ReferenceUNet2D, UNetConfig
from protocol.model.config import ModelConfig
from tests.gpu_worker.engine_world import write_world
from tests.helpers.parity import draw_weights, tiny_configs


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model_config(**changes: Any) -> ModelConfig:
    """A configuration for models that a test builds itself, without files."""
    paths = {field.name: Path() for field in fields(ModelConfig) if field.name.endswith("path")}
    return ModelConfig(**{**paths, "name": "test", "inference_config": {}, **changes})


@dataclass
class TinyModels:
    denoiser: DenoisingUNet3D
    reference: ReferenceUNet2D
    pose_encoder: PoseEncoder


@pytest.fixture(scope="session")
def tiny() -> TinyModels:
    """The tiny modules of the golden runs, with the weights drawn for them."""
    configs = tiny_configs()
    base = {**configs["sd15"], "block_out_channels": configs["block_out_channels"]}
    pose = configs["pose_encoder"]
    models = TinyModels(
        DenoisingUNet3D(UNetConfig.denoiser(base, configs["unet_additional_kwargs"])).eval(),
        ReferenceUNet2D(UNetConfig.reference(base)).eval(),
        PoseEncoder(
            pose["conditioning_embedding_channels"], pose["conditioning_channels"], pose["block_out_channels"]
        ).eval(),
    )
    for name, module in vars(models).items():
        prefix = {"denoiser": "denoising_unet", "reference": "reference_unet"}.get(name, name)
        draw_weights(module, prefix)
    return models


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The flags that name a tiny model in the official layout, its avatars and its poses."""
    return write_world(tmp_path_factory.mktemp("official"))
