"""The engine's start: the sampling of the model that is loaded, and values that are not finite."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml

from gpu_worker.engine.compiled import ClipSampler
from gpu_worker.engine.load import load_model
from gpu_worker.engine.serve import DenoiserEngine
from gpu_worker.engine_api import ClipError
from protocol.process.settings import SettingsError
from tests.gpu_worker.engine_world import QUICK, settings_for, write_world

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return write_world(tmp_path_factory.mktemp("official"))


@pytest.mark.parametrize(
    ("flags", "sampling"),
    [((), "30 steps, guidance 2.5"), (("--steps", "4", "--cfg", "1"), "4 steps, guidance 1.0")],
)
def test_the_plain_model_has_its_own_sampling(
    world: list[str], flags: tuple[str, ...], sampling: str, caplog: pytest.LogCaptureFixture
) -> None:
    """`infer.yaml` names no steps and no guidance. The denoiser's file tells them, and flags win."""
    official = Path(world[1])
    values = yaml.safe_load(official.read_text())
    del values["steps"]
    for name in ("denoising_unet", "motion_module"):
        plain = official.parents[2] / f"pretrained_weights/{name}.pth"
        if not plain.exists():
            plain.hardlink_to(plain.with_name(f"{name}_acc.pth"))
        values[f"{name}_path"] = f"./pretrained_weights/{name}.pth"
    config = official.with_name("infer.yaml")
    config.write_text(yaml.safe_dump(values))
    with caplog.at_level(logging.INFO):
        load_model(settings_for(world, "--config", str(config), *flags))
    assert f"denoiser denoising_unet.pth (plain model): {sampling}" in caplog.text


def test_values_that_are_not_finite_in_half_precision(
    world: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on NVIDIA's GTX 16 series. The run ends with the remedy instead of starting again for ever."""
    made = DenoiserEngine(settings_for(world, *QUICK))
    made.load()
    monkeypatch.setattr(
        ClipSampler, "sample", lambda self, prepared, *rest: torch.full_like(prepared.noise, torch.nan)
    )
    with pytest.raises(ClipError, match="not all finite"):  # another fault in float32
        made._make_warm_up_clip(24)
    made.model = replace(made.model, dtype="float16")
    with pytest.raises(SettingsError, match=r"half precision gives values that .* give --dtype float32"):
        made._make_warm_up_clip(24)
