"""The GPU worker's networks by OpenVINO alone: the same numbers as torch's, and no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gpu_worker.denoiser.loading import load_models
from gpu_worker.denoiser.pipeline import ClipDenoiser
from gpu_worker.engine.openvino import flat_reference
from gpu_worker.engine.shipped_networks import ShippedNetworks, shipped_networks
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine
from protocol.process.settings import Settings

pytest.importorskip("openvino", reason="OpenVINO is not installed here")

FRAMES = 3


def load(folder: Path, config: ModelConfig | None = None) -> ShippedNetworks | None:
    own = config or ModelConfig.load(Settings().config)
    return shipped_networks(own, 64, 96, "float32", CpuEngine(True, folder, 1))


def difference(made: np.ndarray, wanted: torch.Tensor) -> float:
    exact = wanted.float().numpy()
    assert made.shape == exact.shape
    return float(np.linalg.norm(made - exact) / np.linalg.norm(exact))


@torch.inference_mode()
def test_the_bundled_networks_make_torchs_numbers(tmp_path: Path) -> None:
    shipped = load(tmp_path)
    assert shipped is not None
    plain = ClipDenoiser(load_models(ModelConfig.load(Settings().config), torch.device("cpu"), torch.float32))
    random = np.random.default_rng(0)
    picture = random.integers(0, 256, (64, 96, 3), dtype=np.uint8)
    cache = plain.prepare_reference(picture)
    reference = shipped.reference(picture)
    assert difference(reference, flat_reference(cache.reference)) <= 1e-5
    maps = random.random((FRAMES, 3, 64, 96), dtype=np.float32)
    pose = shipped.pose(maps)
    assert difference(pose, plain.encode_pose(torch.from_numpy(maps))) <= 1e-5
    embed = plain.models.denoiser.time_embedding
    for timestep, time in zip((999, 500, 0), shipped.times([999, 500, 0]), strict=True):
        assert difference(time, F.silu(embed(torch.tensor([timestep])))) <= 5e-5
    latents = random.standard_normal((FRAMES, 32, 4, 6), dtype=np.float32)
    tokens = random.standard_normal((FRAMES, 50, 384), dtype=np.float32)
    inputs = [torch.from_numpy(x).transpose(0, 1)[None] for x in (latents, pose)]
    wanted = plain.models.denoiser(inputs[0], 999, torch.from_numpy(tokens)[None], inputs[1], cache.reference)
    order = np.arange(FRAMES)
    for any_length in (False, True):
        graph = shipped.denoiser(FRAMES, 4, 6, 50, any_length=any_length)
        made = graph(latents, shipped.times([999])[0], tokens, pose, order, reference)
        assert difference(made, wanted[0].transpose(0, 1)) <= 1e-5
    one = graph(latents[:1], shipped.times([999])[0], tokens[:1], pose[:1], order[:1], reference)
    assert one.shape == (1, 32, 4, 6)


@pytest.mark.long
def test_kept_networks_serve_the_next_start(tmp_path: Path) -> None:
    picture = np.zeros((64, 96, 3), np.uint8)
    first, second = load(tmp_path), load(tmp_path)
    assert first is not None
    assert second is not None
    assert np.array_equal(first.reference(picture), second.reference(picture))
    assert len(list(tmp_path.glob("*.blob"))) == 2
    with pytest.raises(ValueError, match="needs"):
        second.reference(picture[:32])


def test_a_model_without_topologies_has_none(tmp_path: Path) -> None:
    folder = Path(Settings().config).parent
    for file in folder.iterdir():
        if file.name != "openvino":
            (tmp_path / file.name).symlink_to(file)
    assert load(tmp_path, ModelConfig.load(tmp_path / Path(Settings().config).name)) is None


def test_no_torch_is_imported() -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from gpu_worker.engine.shipped_networks import shipped_networks
        from protocol.model.config import ModelConfig
        from protocol.model.cpu_graph import CpuEngine
        from protocol.process.settings import Settings
        config = ModelConfig.load(Settings().config)
        made = shipped_networks(config, 256, 256, "float32", CpuEngine(True, Path("."), 1))
        made.times([999])
        print([name for name in ("torch", "diffusers", "transformers") if name in sys.modules])
    """
    made = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert made.stdout.strip() == "[]"
