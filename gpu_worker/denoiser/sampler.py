"""DDIM sampling (Song et al. 2020, arXiv 2010.02502) as EchoMimic-v2 uses it.

v-prediction, betas rescaled to zero terminal SNR and trailing timesteps (Lin et al. 2023, arXiv 2305.08891).
The accelerated pipeline also turns each prediction into x0 and back into a velocity toward t = -1. With
x0 = a·x - s·v, that velocity is (a·x - x0)/s = v: the identity, so it is not computed. Every step is linear
in the latents and the prediction, so a sampler is a table of two numbers a step.

Nothing here imports torch. A step takes the arrays of numpy and the tensors of torch alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

#: An array of numpy, or a tensor of torch on any device.
A = TypeVar("A", NDArray[np.float32], "Tensor")

#: The official pipeline clamps its starting noise, which keeps outliers from becoming specks.
NOISE_LIMIT = 1.5
#: Latent preservation: the share of the last latent of the clip before. The rest, 0.4, is noise.
PRESERVED_SHARE = 0.6


class SchedulerError(ValueError):
    """Scheduler options describe no sampler that is known here. The message names the key."""


@dataclass(frozen=True)
class SchedulerConfig:
    """`noise_scheduler_kwargs` of the inference configuration, under diffusers' names and defaults."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    clip_sample: bool = True
    set_alpha_to_one: bool = True
    steps_offset: int = 0
    prediction_type: str = "epsilon"
    rescale_betas_zero_snr: bool = False
    timestep_spacing: str = "leading"

    def __post_init__(self) -> None:
        known = {
            "beta_schedule": ("linear", "scaled_linear"),
            "clip_sample": (False,),
            "prediction_type": ("v_prediction", "sample", "epsilon"),
            "timestep_spacing": ("trailing", "leading"),
        }
        for key, values in known.items():
            if getattr(self, key) not in values:
                raise SchedulerError(
                    f"{key}: {getattr(self, key)!r} is not supported, choose one of {values}"
                )
        if self.prediction_type == "epsilon" and self.rescale_betas_zero_snr:
            raise SchedulerError("prediction_type: 'epsilon' says nothing at zero terminal SNR")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SchedulerConfig:
        """Reads `noise_scheduler_kwargs`.

        Raises:
            SchedulerError: names a key that is unknown or unsupported.
        """
        names = {field.name for field in fields(cls)}
        unknown = sorted(set(values) - names)
        if unknown:
            raise SchedulerError(
                f"{unknown[0]} is no option of the scheduler; there are {', '.join(sorted(names))}"
            )
        return cls(**values)


def alphas_cumprod(config: SchedulerConfig) -> NDArray[np.float64]:
    """Share of the signal's variance at each training timestep, float64 (timesteps,)."""
    ends, count = (config.beta_start, config.beta_end), config.num_train_timesteps
    if config.beta_schedule == "scaled_linear":
        betas = np.linspace(math.sqrt(ends[0]), math.sqrt(ends[1]), count) ** 2
    else:
        betas = np.linspace(*ends, count)
    cumulative = np.cumprod(1 - betas, dtype=np.float64)
    if config.rescale_betas_zero_snr:
        root = np.sqrt(cumulative)
        cumulative = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    return cumulative


@dataclass(frozen=True)
class Step:
    """One sampling step: the next latents are latent_weight · latents + prediction_weight · prediction.

    Attributes:
        timestep: of the training schedule, 0 to 999.
        latent_weight: of the latents.
        prediction_weight: of the prediction.
        signal: share of x0 in the latents at this timestep, where latents = signal · x0 + noise · ε.
        noise: share of ε in them.
    """

    timestep: int
    latent_weight: float
    prediction_weight: float
    signal: float
    noise: float

    def __call__(self, latents: A, prediction: A) -> A:
        """Latents and prediction of this step, of one shape → the next step's latents."""
        return self.latent_weight * latents + self.prediction_weight * prediction

    def noised(self, clean: A, noise: A) -> A:
        """This step's latents on the way to `clean` (x0), for `noise` (ε)."""
        return self.signal * clean + self.noise * noise


def make_steps(config: SchedulerConfig, count: int) -> tuple[Step, ...]:
    """The `count` steps of a sampler, from noise to picture.

    Raises:
        SchedulerError: count is below 1 or above the training timesteps.
    """
    if not 1 <= count <= config.num_train_timesteps:
        raise SchedulerError(f"steps must be 1 to {config.num_train_timesteps}, not {count}")
    cumulative = alphas_cumprod(config)
    final = 1.0 if config.set_alpha_to_one else float(cumulative[0])
    steps = []
    for timestep in _timesteps(config, count):
        # diffusers steps by the whole ratio, which need not be the next of the (rounded) timesteps.
        previous = timestep - config.num_train_timesteps // count
        before = float(cumulative[previous]) if previous >= 0 else final
        steps.append(_step(config, timestep, float(cumulative[timestep]), before))
    return tuple(steps)


def draw_noise(shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[np.float32]:
    """Starting noise, clamped as the official pipeline does."""
    noise = generator.standard_normal(shape, np.float32)
    return np.clip(noise, -NOISE_LIMIT, NOISE_LIMIT, out=noise)


def preserve_latent(noise: A, last_latent: A) -> A:
    """The start of a frame that follows another: 0.6 of the latent before it and 0.4 of its noise.

    Args:
        noise: starting noise of one frame (C, h, w), or of a batch of them (…, C, h, w).
        last_latent: scaled latent of the frame before, of the same shape and dtype, on the same device.
    """
    return PRESERVED_SHARE * last_latent + (1 - PRESERVED_SHARE) * noise


def preserve_in_clip(noise: A, last_latent: A) -> A:
    """A clip's starting latents (F, C, h, w) under `--use-init-latent`: its first frame follows another clip.

    Args:
        noise: starting noise of the clip (F, C, h, w). It stays as it is.
        last_latent: the last scaled latent (C, h, w) of the clip before, as for `preserve_latent`.
    """
    start = 1 * noise
    start[0] = preserve_latent(noise[0], last_latent)
    return start


def _timesteps(config: SchedulerConfig, count: int) -> list[int]:
    total = config.num_train_timesteps
    if config.timestep_spacing == "trailing":
        # numpy's and diffusers' rounding: half to even, as Python's.
        return [round(total - i * total / count) - 1 for i in range(count)]
    return [min(i * (total // count) + config.steps_offset, total - 1) for i in reversed(range(count))]


def _step(config: SchedulerConfig, timestep: int, cumulative: float, previous: float) -> Step:
    """DDIM without added noise: next = a'·x0 + s'·ε, with x0 and ε from latents x and prediction p."""
    a, s = math.sqrt(cumulative), math.sqrt(1 - cumulative)
    a_next, s_next = math.sqrt(previous), math.sqrt(1 - previous)
    if config.prediction_type == "v_prediction":  # x0 = a·x - s·p, ε = s·x + a·p
        weights = (a_next * a + s_next * s, s_next * a - a_next * s)
    elif config.prediction_type == "sample":  # x0 = p, ε = (x - a·p) / s
        weights = (s_next / s, a_next - s_next * a / s)
    else:  # ε = p, x0 = (x - s·p) / a
        weights = (a_next / a, s_next - a_next * s / a)
    return Step(timestep, *weights, signal=a, noise=s)
