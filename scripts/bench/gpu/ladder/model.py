"""A full-size denoiser with random weights, and a clip's inputs, for timing and for errors.

Speed does not depend on the weights, errors do. Weights are drawn N(0, 1/fan-in), norms' weights
1 + 0.1·N(0, 1), biases 0.05·N(0, 1): every branch begins with a norm, so activations keep the order of 1
through all layers. Queries' weights are twice that, so that attention logits have a standard deviation of 2
and attention picks keys out, as in a trained network, where equal weights for all keys would hide its errors.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpu_worker.avatars.vae_encoder import VaeEncoder
from gpu_worker.denoiser.loading import Models
from gpu_worker.denoiser.model import (
    DenoisingUNet3D,
    PoseEncoder,
    ReferenceCache,
    ReferenceUNet2D,
    UNetConfig,
)
from gpu_worker.denoiser.sampler import SchedulerConfig
from protocol.model.config import ModelConfig
from scripts.official.catalogue import INFERENCE

MOTION: dict[str, Any] = INFERENCE["unet_additional_kwargs"]
FULL = {"cross_attention_dim": 384}
TINY = {**FULL, "block_out_channels": [32, 64], "norm_num_groups": 8, "attention_head_dim": 2,
        "layers_per_block": 1, "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}  # fmt: skip


@dataclass
class ClipInputs:
    """A clip's inputs: noise (F, 4, h, w), audio tokens, pose features, reference by block."""

    noise: Tensor
    tokens: Tensor
    pose: Tensor
    bank: dict[str, Tensor]
    reference: ReferenceCache


def draw(module: nn.Module, seed: int) -> None:
    """Fills `module` with random weights as the module's documentation says, on the device they are on."""
    generator = torch.Generator(next(module.parameters()).device).manual_seed(seed)
    for name, parameter in module.named_parameters():
        value = torch.empty_like(parameter).normal_(generator=generator)
        if parameter.ndim > 1:
            gain = 2.0 if name.endswith("to_q.weight") else 1.0
            value *= gain / parameter[0].numel() ** 0.5
        else:
            value = 1 + 0.1 * value if "norm" in name and name.endswith("weight") else 0.05 * value
        parameter.data.copy_(value)


def make_models(device: torch.device, steps: int, tiny: bool) -> Models:
    """float32 models on `device`. The VAE only fills its place and decodes nothing."""
    base: dict[str, Any] = TINY if tiny else FULL
    motion = {**MOTION, "motion_module_kwargs": {**MOTION["motion_module_kwargs"], "num_attention_heads": 2}}
    with torch.device("meta"):
        denoiser = DenoisingUNet3D(UNetConfig.denoiser(base, motion if tiny else MOTION))
        reference = ReferenceUNet2D(UNetConfig.reference(base))
    pe = {name: buffer.clone() for name, buffer in denoiser.named_buffers()}
    for seed, module in enumerate((denoiser, reference)):
        module.to_empty(device=device).eval().requires_grad_(False)
        draw(module, seed)
    for name, buffer in denoiser.named_buffers():
        buffer.copy_(pe[name])
    vae = VaeEncoder({"latent_channels": 4, "scaling_factor": 1.0}, 128, nn.Conv2d(3, 4, 8, stride=8))
    return Models(
        denoiser, reference, PoseEncoder(denoiser.config.block_out_channels[0]), vae,
        SchedulerConfig.from_dict(INFERENCE["noise_scheduler_kwargs"]), _config(steps), device, torch.float32,
    )  # fmt: skip


def _config(steps: int) -> ModelConfig:
    paths: dict[str, Any] = {f.name: Path() for f in fields(ModelConfig) if f.name.endswith("path")}
    return ModelConfig(**paths, name="random", inference_config={}, steps=steps)


@torch.inference_mode()
def make_clip(models: Models, side: int, frames: int, seed: int = 5) -> ClipInputs:
    """Inputs of a clip of side×side latents. Picture and pose are smooth, as real ones are."""
    device, config = models.device, models.denoiser.config
    g = torch.Generator(device).manual_seed(seed)

    def smooth(count: int, channels: int) -> Tensor:
        coarse = torch.randn(
            count, channels, max(2, side // 8), max(2, side // 8), generator=g, device=device
        )
        return F.interpolate(coarse, size=(side, side), mode="bicubic")

    noise = torch.randn(frames, 4, side, side, generator=g, device=device).clamp_(-1.5, 1.5)
    tokens = torch.randn(frames, 50, 384, generator=g, device=device)
    picture = smooth(1, 4) + 0.1 * torch.randn(1, 4, side, side, generator=g, device=device)
    bank = models.reference(picture)
    pose = 0.3 * smooth(frames, config.block_out_channels[0])
    return ClipInputs(noise, tokens, pose, bank, models.denoiser.project_reference(bank))


def as_type(clip: ClipInputs, dtype: torch.dtype) -> ClipInputs:
    """The inputs as a model of `dtype` takes them. Noise stays float32."""
    return ClipInputs(
        clip.noise, clip.tokens.to(dtype), clip.pose.to(dtype),
        {name: x.to(dtype) for name, x in clip.bank.items()}, clip.reference.to(clip.noise.device, dtype),
    )  # fmt: skip


def to_half(models: Models, dtype: torch.dtype) -> Models:
    """The denoiser in `dtype`, in its place. The reference UNet goes."""
    models.denoiser.to(dtype)
    models.dtype = dtype
    # The models of a worker always have one. The ladder's clips bring their reference along.
    models.reference = nn.Module()  # type: ignore[assignment]
    return models
