"""The whole pipeline against the official one's latents, for one clip and for overlapping windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL

from gpu_worker.avatars.vae_encoder import VaeEncoder
from gpu_worker.denoiser.loading import Models
from gpu_worker.denoiser.pipeline import ClipDenoiser
from gpu_worker.denoiser.sampler import SchedulerConfig
from protocol.model.audio_tokens import audio_token_positions
from tests.gpu_worker.conftest import TinyModels, model_config
from tests.helpers.official_sequence import (
    context_windows,
    denoise_sequence,
    encode_poses,
    gather_tokens,
)
from tests.helpers.parity import draw_weights, golden, relative_error, tiny_configs, whole_golden

pytestmark = pytest.mark.parity

LIMIT = 5e-3


@pytest.fixture(scope="module")
def vae() -> Any:
    vae: Any = AutoencoderKL(**tiny_configs()["vae"])
    vae.eval()
    draw_weights(vae, "vae")
    return vae


@pytest.fixture(scope="module")
def models(tiny: TinyModels, vae: Any) -> Models:
    return Models(
        tiny.denoiser,
        tiny.reference,
        tiny.pose_encoder,
        VaeEncoder({**vae.config, "_class_name": "AutoencoderKL"}, 8, vae.encoder, vae.quant_conv),
        SchedulerConfig.from_dict(tiny_configs()["noise_scheduler_kwargs"]),
        model_config(steps=6),
        torch.device("cpu"),
        torch.float32,
    )


@pytest.fixture(scope="module")
def numbers() -> Iterator[dict[str, np.ndarray]]:
    yield golden("pipeline.npz")


def conditions(denoiser: ClipDenoiser, numbers: dict[str, np.ndarray], length: int) -> dict[str, Any]:
    features = numbers["whisper_features"]
    positions = audio_token_positions(length, 24, len(features))
    maps = torch.from_numpy(numbers["poses_uint8"][0, :, :length]).float().transpose(0, 1) / 255
    return {
        "tokens": gather_tokens(features, positions),
        "pose_features": encode_poses(denoiser, maps),
        "reference": denoiser.prepare_reference(numbers["image"]).reference,
    }


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_clip_path(models: Models, numbers: dict[str, np.ndarray], guidance: float) -> None:
    denoiser = ClipDenoiser(models, guidance_scale=guidance)
    given = conditions(denoiser, numbers, 12)
    noise = torch.from_numpy(numbers[f"noise_L12_cfg{guidance}"])[0].transpose(0, 1)
    audio = denoiser.project_audio(given["tokens"])
    latents = denoiser.sample(noise, audio, given["pose_features"], given["reference"])
    report(latents, numbers, f"L12_cfg{guidance}", "clip of 12 frames")


@pytest.mark.parametrize("guidance", [1.0, 2.5])
def test_overlapping_windows(models: Models, guidance: float) -> None:
    numbers = whole_golden("pipeline.npz")
    denoiser = ClipDenoiser(models, guidance_scale=guidance)
    noise = torch.from_numpy(numbers[f"noise_L30_cfg{guidance}"])[0].transpose(0, 1)
    latents = denoise_sequence(denoiser, noise, **conditions(denoiser, numbers, 30))
    report(latents, numbers, f"L30_cfg{guidance}", "30 frames in windows")


def report(latents: torch.Tensor, numbers: dict[str, np.ndarray], name: str, what: str) -> None:
    error = relative_error(latents.transpose(0, 1)[None], numbers[f"latents_{name}"])
    print(f"parity: pipeline, {what}, guidance {name.split('cfg')[1]}: latents rel err {error:.1e}")
    assert error <= LIMIT


@torch.no_grad()
def test_video(vae: Any) -> None:
    numbers = whole_golden("pipeline.npz")
    latents = torch.from_numpy(numbers["latents_L12_cfg1.0"])[0].transpose(0, 1)
    video = (vae.decode(latents / vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    error = relative_error(video.transpose(0, 1)[None], numbers["video_L12_cfg1.0"])
    print(f"parity: decoded video rel err {error:.1e}")
    assert error <= LIMIT


@torch.no_grad()
def test_vae_encoder(models: Models) -> None:
    numbers = golden("vae.npz")
    encoder = models.vae_encoder
    mean = encoder(torch.from_numpy(numbers["image"])) / encoder.scaling_factor
    error = relative_error(mean, numbers["mean"])
    print(f"parity: VAE encoder rel err {error:.1e}")
    assert error <= 1e-4


def test_windows_of_the_official_pipeline() -> None:
    assert context_windows(12) == [list(range(12))]
    assert context_windows(5) == [list(range(5))]
    windows = context_windows(30)
    assert [window[0] for window in windows] == [0, 9, 18, 27]
    assert windows[3] == [27, 28, 29, 0, 1, 2, 3, 4, 5, 6, 7, 8]
