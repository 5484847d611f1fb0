"""The networks that are trained together, built from the bundled configuration."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from demo.factory.train.config import BASE_UNET, INFERENCE, POSE_ENCODER
from gpu_worker.denoiser.model.denoiser import DenoisingUNet3D
from gpu_worker.denoiser.model.pose_encoder import PoseEncoder
from gpu_worker.denoiser.model.reference import ReferenceUNet2D
from gpu_worker.denoiser.unet_config import UNetConfig

ModuleType = TypeVar("ModuleType", bound=nn.Module)


class Networks(nn.Module):
    """Denoiser (motion modules included), reference UNet and pose encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.denoiser = DenoisingUNet3D(UNetConfig.denoiser(BASE_UNET, INFERENCE["unet_additional_kwargs"]))
        self.reference = ReferenceUNet2D(UNetConfig.reference(BASE_UNET))
        self.pose_encoder = PoseEncoder(
            POSE_ENCODER["conditioning_embedding_channels"],
            POSE_ENCODER["conditioning_channels"],
            tuple(POSE_ENCODER["block_out_channels"]),
        )

    def forward(
        self, latents: Tensor, timestep: Tensor, tokens: Tensor, poses: Tensor, reference: Tensor
    ) -> Tensor:
        """The v-prediction (B, C, F, h, w).

        Args:
            latents: noisy latents (B, C, F, h, w).
            timestep: (B,).
            tokens: audio tokens (B, F, T, 384).
            poses: pose maps (B, 3, F, H, W) in 0..1.
            reference: latents (B, C, h, w) of the reference pictures.
        """
        cache = self.denoiser.project_reference(self.reference(reference))
        predicted: Tensor = self.denoiser(latents, timestep, tokens, self.pose_encoder(poses), cache)
        return predicted


def channels_last(module: ModuleType, device: torch.device) -> ModuleType:
    """Move a module to a device, with its weights in the memory order that convolutions like best."""
    # torch's annotation of `to` knows `memory_format` only together with a tensor.
    moved: ModuleType = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved


def build_networks() -> Networks:
    """New networks of the bundled shape, untrained."""
    return Networks()


def parameter_count(module: nn.Module) -> float:
    """Millions of parameters."""
    return sum(p.numel() for p in module.parameters()) / 1e6


if __name__ == "__main__":
    networks = build_networks()
    for name, part in networks.named_children():
        print(f"{name}: {parameter_count(part):.2f} M parameters")
    with torch.no_grad():
        out = networks(
            torch.randn(1, 32, 12, 16, 16),
            torch.tensor([999]),
            torch.randn(1, 12, 50, 384),
            torch.rand(1, 3, 12, 256, 256),
            torch.randn(1, 32, 16, 16),
        )
    print("output", tuple(out.shape))
