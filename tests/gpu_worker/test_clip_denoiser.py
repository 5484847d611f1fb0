"""The clip path: its parts, latent preservation, guidance, compiled runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gpu_worker.avatars.vae_encoder import VaeEncoder
from gpu_worker.denoiser.loading import Models
from gpu_worker.denoiser.model import DenoisingUNet3D, PoseEncoder, ReferenceUNet2D, UNetConfig
from gpu_worker.denoiser.pipeline import ClipDenoiser
from gpu_worker.denoiser.sampler import SchedulerConfig, preserve_in_clip
from tests.gpu_worker.conftest import model_config
from tests.gpu_worker.test_model import MOTION, SMALL
from tests.helpers.official_layout import INFERENCE
from tests.helpers.official_sequence import denoise_sequence

pytestmark = pytest.mark.slow

FRAMES, SIDE = 4, 16
BASE = {**SMALL, "out_channels": 8}
VAE = {"latent_channels": 8, "scaling_factor": 0.5}


def small_models(**changes: Any) -> Models:
    torch.manual_seed(0)
    modules = (
        DenoisingUNet3D(UNetConfig.denoiser(BASE, MOTION)),
        ReferenceUNet2D(UNetConfig.reference(BASE)),
        PoseEncoder(16, 3, (4, 8)),
        VaeEncoder(VAE, 2, torch.nn.Conv2d(3, 8, 2, stride=2)),
    )
    for module in modules:
        for parameter in module.eval().requires_grad_(False).parameters():
            if parameter.ndim > 1 and not parameter.any():
                torch.nn.init.normal_(parameter, std=0.2)
    scheduler = SchedulerConfig.from_dict(INFERENCE["noise_scheduler_kwargs"])
    config = model_config(**{"steps": 3, "window_shift": 0, **changes})
    return Models(*modules, scheduler, config, torch.device("cpu"), torch.float32)


@pytest.fixture(scope="module")
def models() -> Models:
    return small_models()


def conditions(denoiser: ClipDenoiser, frames: int = FRAMES) -> dict[str, Any]:
    g = torch.Generator().manual_seed(3)
    picture = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    return {
        "tokens": torch.randn(frames, 5, 24, generator=g),
        "pose_features": denoiser.encode_pose(torch.rand(frames, 3, SIDE, SIDE, generator=g)),
        "reference": denoiser.prepare_reference(picture).reference,
    }


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def difference(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def test_a_clip(models: Models, caplog: pytest.LogCaptureFixture) -> None:
    denoiser = ClipDenoiser(models)
    with caplog.at_level("INFO"):
        given = conditions(denoiser)
    assert "reference cache: keys and values of 4 blocks" in caplog.text
    latents = denoiser.denoise(**given, init_latent=None, generator=seeded())
    assert latents.shape == (FRAMES, 8, SIDE // 2, SIDE // 2)
    assert latents.dtype == torch.float32
    assert torch.isfinite(latents).all()
    assert torch.equal(latents, denoiser.denoise(**given, init_latent=None, generator=seeded()))
    assert not torch.equal(latents, denoiser.denoise(**given, init_latent=None, generator=seeded(1)))


def test_steps_and_guidance_default_to_the_configuration(models: Models) -> None:
    assert [step.timestep for step in ClipDenoiser(models).steps] == [999, 666, 332]
    assert len(ClipDenoiser(models, steps=1).steps) == 1
    assert ClipDenoiser(small_models(cfg=2.0)).guidance_scale == 2.0


def test_prepared_audio_gives_the_same_clip(models: Models) -> None:
    denoiser = ClipDenoiser(models, guidance_scale=2.0)
    given = conditions(denoiser)
    plain = denoiser.denoise(**given, init_latent=None, generator=seeded())
    prepared = {**given, "tokens": denoiser.project_audio(given["tokens"])}
    assert torch.equal(plain, denoiser.denoise(**prepared, init_latent=None, generator=seeded()))


def test_preservation_mixes_the_first_frame_alone() -> None:
    noise, before = torch.randn(FRAMES, 8, 8, 8), torch.randn(8, 8, 8)
    given = noise.clone()
    start = preserve_in_clip(noise, before)
    torch.testing.assert_close(start[0], 0.6 * before + 0.4 * noise[0])
    assert torch.equal(start[1:], noise[1:])
    assert torch.equal(noise, given)


def test_preservation_changes_the_clip(models: Models) -> None:
    denoiser = ClipDenoiser(models)
    given = conditions(denoiser)
    first = denoiser.denoise(**given, init_latent=None, generator=seeded())
    second = denoiser.denoise(**given, init_latent=first[-1], generator=seeded())
    assert difference(second[0], first[0]) > 1e-3


def test_guidance_extrapolates_from_the_unconditional_half(models: Models) -> None:
    latents = torch.randn(1, 8, FRAMES, 8, 8, generator=seeded())
    predictions = {}
    for scale in (1.0, 2.0, 3.0):
        denoiser = ClipDenoiser(models, guidance_scale=scale)
        given = conditions(denoiser)
        audio = denoiser.project_audio(given["tokens"])
        pose = given["pose_features"].transpose(0, 1)[None]
        with torch.inference_mode():
            predictions[scale] = denoiser.predict(latents, 0, audio, pose, given["reference"], None)
    wanted = 2 * predictions[2.0] - predictions[1.0]
    torch.testing.assert_close(predictions[3.0], wanted, rtol=1e-3, atol=1e-4)
    assert difference(predictions[2.0], predictions[1.0]) > 1e-3


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@pytest.mark.parametrize("shift", [0, 1, 3])
def test_moving_the_positions_is_rotating_the_frames(shift: int, guidance: float) -> None:
    denoiser = ClipDenoiser(small_models(window_shift=shift), guidance_scale=guidance)
    given = conditions(denoiser)
    noise = torch.randn(FRAMES, 8, 8, 8, generator=seeded())
    audio = denoiser.project_audio(given["tokens"])
    moved = denoiser.sample(noise, audio, given["pose_features"], given["reference"])
    rotated = denoise_sequence(denoiser, noise, **given)
    torch.testing.assert_close(moved, rotated, rtol=1e-3, atol=1e-4)


def test_clips_of_any_length(models: Models) -> None:
    denoiser = ClipDenoiser(models, steps=1)
    for frames in (1, 4, 6):
        latents = denoiser.denoise(**conditions(denoiser, frames), init_latent=None, generator=seeded())
        assert len(latents) == frames


def test_reference_latents_are_scaled(models: Models) -> None:
    picture = np.full((SIDE, SIDE, 3), 255, np.uint8)
    wanted = models.vae_encoder.encoder(torch.ones(1, 3, SIDE, SIDE)) * 0.5
    torch.testing.assert_close(ClipDenoiser(models).prepare_reference(picture).latents, wanted)


@pytest.mark.parametrize("shape", [(16, 16), (15, 16, 3), (16, 16, 4)])
def test_picture_of_another_shape(models: Models, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="divisible by 2"):
        ClipDenoiser(models).prepare_reference(np.zeros(shape, np.uint8))


def test_compiled_denoiser_gives_the_same_clip(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_with = torch.compile

    def traced_only(module: Any, *, mode: str, **options: Any) -> Any:
        assert mode == "default"
        return compile_with(module, backend="eager", **options)

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", traced_only)
    given = conditions(ClipDenoiser(models))
    plain = ClipDenoiser(models, steps=1).denoise(**given, init_latent=None, generator=seeded())
    compiled = ClipDenoiser(models, steps=1, compile_unet=True)
    assert torch.equal(plain, compiled.denoise(**given, init_latent=None, generator=seeded()))


def test_sampling_from_a_later_step(models: Models) -> None:
    """From the first step's latents, the others make the same clip as the whole loop."""
    denoiser = ClipDenoiser(models)
    given = conditions(denoiser)
    audio = denoiser.project_audio(given["tokens"])
    noise = torch.randn(FRAMES, 8, 8, 8, generator=seeded())
    whole = denoiser.sample(noise, audio, given["pose_features"], given["reference"])
    with torch.inference_mode():
        pose = given["pose_features"].transpose(0, 1)[None]
        x = noise.transpose(0, 1)[None]
        order = denoiser._order(FRAMES)[0]
        x = denoiser.steps[0](x, denoiser.predict(x, 0, audio, pose, given["reference"], order).float())
        half = x[0].transpose(0, 1)
    rest = denoiser.sample(half, audio, given["pose_features"], given["reference"], 1)
    torch.testing.assert_close(rest, whole)


def test_noised_latents_have_the_steps_shares(models: Models) -> None:
    first, second, _ = ClipDenoiser(models).steps
    clean, noise = torch.randn(8, 2, 2), torch.randn(FRAMES, 8, 2, 2)
    torch.testing.assert_close(first.noised(clean, noise), noise, atol=1e-6, rtol=0)  # no signal at the start
    made = second.noised(clean, noise)
    assert made.shape == noise.shape
    torch.testing.assert_close(made[2], second.signal * clean + second.noise * noise[2])
    assert second.signal**2 + second.noise**2 == pytest.approx(1.0)
