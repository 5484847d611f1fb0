"""Reads from a model configuration what its networks and its sampler are built from. No torch."""

from __future__ import annotations

from gpu_worker.denoiser.sampler import SchedulerConfig, SchedulerError
from gpu_worker.denoiser.unet_config import UNetConfig, UNetConfigError
from protocol.model.config import ConfigError, ModelConfig


def unet_configs(config: ModelConfig) -> tuple[UNetConfig, UNetConfig]:
    """Of the denoiser and of the reference network.

    Raises:
        ConfigError: a number is missing or impossible. The message names the file.
    """
    base = config.base_unet_config()
    try:
        return UNetConfig.denoiser(base, config.unet_additional_kwargs), UNetConfig.reference(base)
    except UNetConfigError as error:
        raise ConfigError(f"{config.path}: base UNet or unet_additional_kwargs: {error}") from error


def scheduler_config(config: ModelConfig) -> SchedulerConfig:
    """Of the sampler.

    Raises:
        ConfigError: a number is missing or impossible. The message names the file.
    """
    try:
        return SchedulerConfig.from_dict(config.noise_scheduler_kwargs)
    except (SchedulerError, TypeError) as error:
        raise ConfigError(f"{config.path}: noise_scheduler_kwargs: {error}") from error
