"""The reference UNet: run once per avatar, it gives the denoiser the features of the reference picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_worker.denoiser.model.transformer import BlockConditions
from gpu_worker.denoiser.model.unet import UNetBody
from gpu_worker.denoiser.unet_config import UNetConfig


class ReferenceUNet2D(UNetBody):
    """A Stable Diffusion 1.5 UNet without cross-attention and output layers (official `reference_unet`)."""

    def __init__(self, config: UNetConfig) -> None:
        if config.cross_attention_dim is not None or config.motion is not None:
            raise ValueError("the reference UNet has neither cross-attention nor motion modules")
        super().__init__(config)

    def forward(self, latents: Tensor, timestep: Tensor | None = None) -> dict[str, Tensor]:
        """Reference features of each transformer block.

        Args:
            latents: scaled latents (B, C, h, w) of the reference picture.
            timestep: (B,), or None for 0, as in inference.

        Returns:
            The bank: block name → (B, tokens, width), each block's input after norm1, in the order of
            registration.
        """
        if timestep is None:
            timestep = torch.zeros(latents.shape[0], device=latents.device)
        time = F.silu(self.time_embedding(timestep))
        bank: dict[str, Tensor] = {}
        x = self.conv_in(latents.contiguous(memory_format=torch.channels_last))
        self.run(x, BlockConditions(time=time, frames=1, bank=bank))
        return {name: bank[name] for name in self.transformer_blocks}
