"""The sampler against diffusers' DDIM scheduler, and the identity that the accelerated step rests on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler

from gpu_worker.denoiser.sampler import (
    SchedulerConfig,
    SchedulerError,
    alphas_cumprod,
    draw_noise,
    make_steps,
)
from tests.helpers.official_layout import INFERENCE

OFFICIAL: dict[str, Any] = INFERENCE["noise_scheduler_kwargs"]
PLAIN = {**OFFICIAL, "rescale_betas_zero_snr": False}


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7, 25, 30])
@pytest.mark.parametrize(
    "kwargs",
    [
        OFFICIAL,
        {**OFFICIAL, "prediction_type": "sample"},
        {**PLAIN, "prediction_type": "epsilon", "timestep_spacing": "leading", "steps_offset": 0},
        {**PLAIN, "beta_schedule": "scaled_linear", "set_alpha_to_one": False},
    ],
    ids=["official", "sample", "epsilon", "scaled"],
)
def test_steps_are_those_of_diffusers(kwargs: dict[str, Any], count: int) -> None:
    scheduler: Any = DDIMScheduler(**kwargs)
    scheduler.set_timesteps(count)
    steps = make_steps(SchedulerConfig.from_dict(kwargs), count)
    assert [step.timestep for step in steps] == scheduler.timesteps.tolist()
    g = torch.Generator().manual_seed(0)
    latents, prediction = torch.randn(2, 3, 4, generator=g), torch.randn(2, 3, 4, generator=g)
    for step in steps:
        wanted = scheduler.step(prediction, step.timestep, latents).prev_sample
        torch.testing.assert_close(step(latents, prediction), wanted, rtol=2e-4, atol=2e-4)


def test_official_timesteps() -> None:
    steps = make_steps(SchedulerConfig.from_dict(OFFICIAL), 6)
    assert [step.timestep for step in steps] == [999, 832, 666, 499, 332, 166]
    assert steps[0].signal == 0.0  # zero terminal SNR: the first step sees noise alone
    assert steps[0].noise == 1.0


def test_one_step_is_minus_the_prediction() -> None:
    (step,) = make_steps(SchedulerConfig.from_dict(OFFICIAL), 1)
    assert (step.latent_weight, step.prediction_weight) == (0.0, -1.0)


def test_conversion_of_the_accelerated_pipeline_is_the_identity() -> None:
    """v → x0 → velocity toward t = -1, where signal is 1 and noise 0, gives v again."""
    cumulative = torch.from_numpy(alphas_cumprod(SchedulerConfig.from_dict(OFFICIAL)))
    g = torch.Generator().manual_seed(0)
    latents, v = (torch.randn(5, generator=g, dtype=torch.float64) for _ in range(2))
    for timestep in (999, 832, 666, 499, 332, 166):
        a, s = cumulative[timestep].sqrt(), (1 - cumulative[timestep]).sqrt()
        x0 = a * latents - s * v
        cosine, sine = 1.0 * a + 0.0 * s, 1.0 * s - 0.0 * a  # of the angle from here to t = -1
        torch.testing.assert_close((cosine * latents - x0) / sine, v)


def test_noise_is_clamped_and_repeatable() -> None:
    noise = draw_noise((100, 100), np.random.default_rng(7))
    assert np.abs(noise).max() == 1.5 and noise.dtype == np.float32
    assert np.array_equal(noise, draw_noise((100, 100), np.random.default_rng(7)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"beta_schedule": "cosine"}, "beta_schedule"),
        ({"clip_sample": True}, "clip_sample"),
        ({"prediction_type": "epsilon"}, "prediction_type"),
        ({"timestep_spacing": "linspace"}, "timestep_spacing"),
        ({"thresholding": True}, "thresholding is no option"),
    ],
)
def test_unsupported_options_are_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(SchedulerError, match=words):
        SchedulerConfig.from_dict({**OFFICIAL, **change})


@pytest.mark.parametrize("count", [0, 1001])
def test_number_of_steps(count: int) -> None:
    with pytest.raises(SchedulerError, match="steps"):
        make_steps(SchedulerConfig.from_dict(OFFICIAL), count)
