"""Weights of a model configuration into modules, each key and shape accounted for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import nn

from gpu_worker.avatars.vae_encoder import LazyVaeEncoder, VaeEncoder, load_vae_encoder
from gpu_worker.denoiser.model import DenoisingUNet3D, PoseEncoder, ReferenceUNet2D, UNetConfig
from gpu_worker.denoiser.numbers import scheduler_config, unet_configs
from gpu_worker.denoiser.sampler import SchedulerConfig
from protocol.model.checkpoint import load_into, read_state_dict
from protocol.model.config import ConfigError, ModelConfig
from protocol.model.vae_folder import VaeFolder

logger = logging.getLogger(__name__)

#: In the name of every parameter of a motion module.
MOTION = ".motion_modules."

#: Parameters that are computed, and so are left out of some files.
COMPUTED = ("*.pos_encoder.pe",)
M = TypeVar("M", bound=nn.Module)


@dataclass
class Models:
    """The networks of the GPU worker, in `dtype` on `device`. The VAE's encoder is in float32."""

    denoiser: DenoisingUNet3D
    reference: ReferenceUNet2D
    pose_encoder: PoseEncoder
    vae_encoder: VaeEncoder
    scheduler: SchedulerConfig
    config: ModelConfig
    device: torch.device
    dtype: torch.dtype


def load_models(
    config: ModelConfig, device: torch.device, dtype: torch.dtype, *, lazy_vae: bool = False
) -> Models:
    """Builds and fills the networks of a configuration.

    Args:
        config: names the files.
        device: takes the networks.
        dtype: of the networks but the VAE's encoder.
        lazy_vae: whether the VAE's encoder is loaded, and its file checked, only when a picture comes.

    Raises:
        ConfigError, CheckpointError: a key is missing, unexpected, of the wrong shape or impossible. The
            message names it and the file. Both are SettingsErrors.
    """
    begin = time.monotonic()
    denoiser_config, reference_config = unet_configs(config)
    scheduler = scheduler_config(config)
    vae_folder = VaeFolder.of(config)
    vae_encoder = LazyVaeEncoder(vae_folder, device) if lazy_vae else load_vae_encoder(vae_folder)
    if vae_encoder.channels != denoiser_config.in_channels:
        raise ConfigError(
            f"{config.path}: the VAE's latents have {vae_encoder.channels} channels, "
            f"the UNet's in_channels are {denoiser_config.in_channels}"
        )
    target = _WeightsPlace(device, dtype)
    denoiser, reference = _load_unets(denoiser_config, reference_config, config, target)
    models = Models(
        denoiser=denoiser,
        reference=reference,
        pose_encoder=_load(
            lambda: _pose_encoder(config, denoiser_config, vae_encoder), config.pose_encoder_path, target
        ),
        vae_encoder=vae_encoder,
        scheduler=scheduler,
        config=config,
        device=device,
        dtype=dtype,
    )
    for module in (models.denoiser, models.reference, models.pose_encoder, models.vae_encoder):
        module.to(device)
        channels_last(module)
    count = sum(p.numel() for p in models.denoiser.parameters()) / 1e6
    seconds = time.monotonic() - begin
    logger.info(
        "model %s: denoiser of %.1f M parameters, %s on %s, loaded in %.1f s",
        config.name, count, dtype, device, seconds,
    )  # fmt: skip
    return models


class _WeightsPlace(NamedTuple):
    """Where weights go, and their dtype there."""

    device: torch.device
    dtype: torch.dtype


def _load_unets(
    denoiser: UNetConfig, reference: UNetConfig, config: ModelConfig, target: _WeightsPlace
) -> tuple[DenoisingUNet3D, ReferenceUNet2D]:
    def load_reference() -> ReferenceUNet2D:
        return _load(lambda: ReferenceUNet2D(reference), config.reference_unet_path, target)

    if target.device.type == "cpu":
        return _load_denoiser(denoiser, config, target), load_reference()
    # Both at once: copies to a device leave the interpreter to the other.
    with ThreadPoolExecutor(1, "load") as pool:
        second = pool.submit(load_reference)
        return _load_denoiser(denoiser, config, target), second.result()


def _load_denoiser(unet: UNetConfig, config: ModelConfig, target: _WeightsPlace) -> DenoisingUNet3D:
    """Denoiser with its motion modules. Where both files hold a key, the denoiser's counts, as officially."""
    denoiser = _on_meta(lambda: DenoisingUNet3D(unet))
    state = read_state_dict(config.denoising_unet_path)
    if config.motion_module_path is None:
        load_into(
            denoiser, state, file=config.denoising_unet_path, allow_missing=COMPUTED, **target._asdict()
        )
        return _frozen(denoiser, target.dtype)

    def in_first_file(key: str) -> bool:
        return MOTION not in key or key in state

    load_into(denoiser, state, file=config.denoising_unet_path, only=in_first_file, **target._asdict())
    load_into(
        denoiser,
        {k: v for k, v in read_state_dict(config.motion_module_path).items() if k not in state},
        file=config.motion_module_path,
        only=lambda key: not in_first_file(key),
        allow_missing=COMPUTED,
        **target._asdict(),
    )
    return _frozen(denoiser, target.dtype)


def _pose_encoder(config: ModelConfig, unet: UNetConfig, vae: VaeEncoder) -> PoseEncoder:
    where = f"{config.path}: pose_encoder_kwargs"
    width = unet.block_out_channels[0]
    given = config.inference_config.get("pose_encoder_kwargs") or {}
    try:
        kwargs: dict[str, Any] = {"conditioning_embedding_channels": width, **given}
        encoder = PoseEncoder(**kwargs)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"{where}: {error}") from error
    if kwargs["conditioning_embedding_channels"] != width:
        raise ConfigError(f"{where}: conditioning_embedding_channels must be {width}, the UNet's first width")
    factor = 2 ** (len(encoder.blocks) // 2)
    if factor != vae.factor:
        raise ConfigError(
            f"{where}: block_out_channels make maps {factor} times smaller, and the VAE {vae.factor} times"
        )
    return encoder


def _load(build: Callable[[], M], file: Path, target: _WeightsPlace) -> M:
    module = _on_meta(build)
    load_into(module, read_state_dict(file), file=file, **target._asdict())
    return _frozen(module, target.dtype)


def _on_meta(build: Callable[[], M]) -> M:
    # The meta device gives no values: initialising a billion of them takes longer than reading them.
    with torch.device("meta"):
        return build()


def channels_last(module: nn.Module) -> None:
    for parameter in module.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _frozen(module: M, dtype: torch.dtype) -> M:
    # Tables that are computed and not loaded are converted too.
    return module.to(dtype).eval().requires_grad_(False)
