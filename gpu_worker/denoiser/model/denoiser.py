"""The denoising UNet of EchoMimic-v2: SD 1.5 inflated over frames, driven by audio, pose and reference."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gpu_worker.denoiser.model.transformer import BlockConditions, KeysValues
from gpu_worker.denoiser.model.unet import UNetBody
from gpu_worker.denoiser.unet_config import UNetConfig


@dataclass(frozen=True)
class ReferenceCache:
    """Keys and values of the reference for each transformer block, by slot: each (B, tokens, width).

    They depend on the avatar alone, and not on frame, timestep or session. So using them again is exact.
    """

    layers: tuple[KeysValues, ...]

    @property
    def nbytes(self) -> int:
        """Their size in bytes."""
        return sum(x.numel() * x.element_size() for pair in self.layers for x in pair)

    def to(self, device: torch.device | str, dtype: torch.dtype) -> ReferenceCache:
        """A copy on another device or in another dtype."""
        return ReferenceCache(tuple((k.to(device, dtype), v.to(device, dtype)) for k, v in self.layers))


class DenoisingUNet3D(UNetBody):
    """Official `denoising_unet` (EMOUNet3DConditionModel) with its motion modules."""

    def __init__(self, config: UNetConfig) -> None:
        if config.cross_attention_dim is None:
            raise ValueError("the denoising UNet needs cross_attention_dim (the width of the audio tokens)")
        super().__init__(config)
        width = config.block_out_channels[0]
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, width, eps=config.norm_eps)
        self.conv_out = nn.Conv2d(width, config.out_channels, 3, padding=1)

    def project_reference(self, bank: dict[str, Tensor]) -> ReferenceCache:
        """Reference keys and values of each block from the reference UNet's features, once per avatar.

        Blocks are paired after a stable sort by −width, as in the official code.

        Args:
            bank: block name → (B, tokens, width), from a matching ReferenceUNet2D.

        Raises:
            ValueError: the two UNets do not match.
        """
        blocks = self.transformer_blocks
        if len(bank) != len(blocks):
            raise ValueError(f"the reference has {len(bank)} attention blocks, the denoiser {len(blocks)}")
        targets = sorted(blocks, key=lambda name: -blocks[name].width)
        sources = sorted(bank, key=lambda name: -bank[name].shape[-1])
        layers: dict[int, KeysValues] = {}
        for target, source in zip(targets, sources, strict=True):
            block, features = blocks[target], bank[source]
            if features.shape[-1] != block.width:
                raise ValueError(
                    f"reference {source} has width {features.shape[-1]}, {target} has {block.width}"
                )
            layers[block.slot] = block.attn1.keys_values(features)
        return ReferenceCache(tuple(layers[slot] for slot in range(len(layers))))

    def project_audio(self, audio: Tensor) -> tuple[KeysValues, ...]:
        """Audio keys and values of each block, once per clip: (B, F, T, width) → by slot, (B·F, T, c)."""
        return self._project_tokens(audio.flatten(0, 1))

    def _project_tokens(self, tokens: Tensor) -> tuple[KeysValues, ...]:
        return tuple(block.attn2.keys_values(tokens) for block in self.transformer_blocks.values())

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor | int,
        audio: Tensor | tuple[KeysValues, ...],
        pose_features: Tensor | None,
        reference: ReferenceCache | None,
        order: Tensor | None = None,
    ) -> Tensor:
        """Predicts v for each frame.

        Args:
            latents: scaled latents (B, C, F, h, w).
            timestep: a number, or (B,).
            audio: audio tokens (B, F, T, 384), or their keys and values from `project_audio`.
            pose_features: (B, c0, F, h, w), or None.
            reference: of batch B, or None for a pass without one, the unconditional half of guidance.
            order: positions (F,) of the frames in the motion modules, or None for 0, 1, …

        Returns:
            The prediction (B, C_out, F, h, w).
        """
        batch, _, frames, _, _ = latents.shape
        if isinstance(audio, Tensor):
            audio = self.project_audio(audio)
        timestep = torch.as_tensor(timestep, device=latents.device).reshape(-1).expand(batch)
        conditions = BlockConditions(
            time=F.silu(self.time_embedding(timestep)),
            frames=frames,
            audio=audio,
            reference=None if reference is None else reference.layers,
            order=order,
        )
        x = self.conv_in(fold_frames(latents))
        if pose_features is not None:
            x = x + fold_frames(pose_features)
        prediction: Tensor = self._finish(x, conditions).unflatten(0, (batch, frames))
        return prediction.transpose(1, 2)

    def predict_clip(
        self,
        latents: Tensor,
        time: Tensor,
        tokens: Tensor,
        pose: Tensor,
        order: Tensor,
        reference: tuple[KeysValues, ...],
    ) -> Tensor:
        """`forward` for one clip, as a function of tensors alone, which can be traced.

        Args:
            latents: (F, C, h, w).
            time: embedding of the timestep after SiLU, (1, time width).
            tokens: audio tokens (F, T, 384).
            pose: pose features (F, c0, h, w).
            order: positions (F,) of the frames in the motion modules.
            reference: the avatar's keys and values of each block, by slot.

        Returns:
            The prediction of v (F, C_out, h, w).
        """
        conditions = BlockConditions(
            time=time,
            frames=latents.shape[0],
            audio=self._project_tokens(tokens),
            reference=reference,
            order=order,
        )
        return self._finish(self.conv_in(latents) + pose, conditions)

    def _finish(self, x: Tensor, conditions: BlockConditions) -> Tensor:
        """x (B·F, c0, h, w) after the input convolution and the pose → the prediction (B·F, C_out, h, w)."""
        prediction: Tensor = self.conv_out(F.silu(self.conv_norm_out(self.run(x, conditions))))
        return prediction


def fold_frames(x: Tensor) -> Tensor:
    """(B, C, F, h, w) → (B·F, C, h, w), channels_last."""
    return x.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
