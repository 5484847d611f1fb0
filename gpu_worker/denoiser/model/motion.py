"""Motion modules (AnimateDiff, arXiv 2307.04725): self-attention over the frames at each position."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gpu_worker.denoiser.model.attention import Attention, FeedForward, attend_temporal
from gpu_worker.denoiser.model.transformer import to_image, to_tokens
from gpu_worker.denoiser.unet_config import MotionConfig


class PositionEncoding(nn.Module):
    """Sinusoidal position of each frame. `pe` is (1, max frames, width)."""

    pe: Tensor

    def __init__(self, width: int, max_frames: int) -> None:
        super().__init__()
        # On the CPU even where the module is built on the meta device: the table is computed, not loaded.
        position = torch.arange(max_frames, dtype=torch.float32, device="cpu")[:, None]
        even = torch.arange(0, width, 2, dtype=torch.float32, device="cpu")
        rate = torch.exp(even * (-math.log(10000.0) / width))
        pe = torch.zeros(1, max_frames, width, device="cpu")
        pe[0, :, 0::2] = torch.sin(position * rate)
        pe[0, :, 1::2] = torch.cos(position * rate)
        self.register_buffer("pe", pe)

    def forward(self, x: Tensor, frames: int, order: Tensor | None) -> Tensor:
        """x (B·frames, tokens, width) → same shape. `order` (frames,): positions, None for 0, 1, …"""
        table = self.pe[0, :frames] if order is None else self.pe[0].index_select(0, order)
        placed: Tensor = x.unflatten(0, (-1, frames)) + table[:, None, :]
        return placed.flatten(0, 1)


class FrameAttention(Attention):
    """Self-attention over frames, with the frames' positions added to its input."""

    def __init__(self, width: int, config: MotionConfig) -> None:
        super().__init__(width, config.heads, inner=width // config.dim_div)
        self.pos_encoder = PositionEncoding(width, config.max_frames) if config.position_encoding else None

    def forward(self, x: Tensor, frames: int, order: Tensor | None) -> Tensor:
        if self.pos_encoder is not None:
            x = self.pos_encoder(x, frames, order)
        q, (k, v) = self.to_q(x), self.keys_values(x)
        return self.project_out(attend_temporal(q, k, v, frames, self.heads))


class TemporalTransformerBlock(nn.Module):
    """Temporal attentions one after another, then a feed-forward, each with its norm and residual."""

    def __init__(self, width: int, config: MotionConfig) -> None:
        super().__init__()
        count = config.attention_blocks
        self.attention_blocks = nn.ModuleList([FrameAttention(width, config) for _ in range(count)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(count)])
        self.ff = FeedForward(width)
        self.ff_norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, frames: int, order: Tensor | None) -> Tensor:
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + attention(norm(x), frames, order)
        fed: Tensor = self.ff(self.ff_norm(x))
        return x + fed


class TemporalTransformer(nn.Module):
    """norm → linear in → temporal transformer blocks → linear out → + input."""

    def __init__(self, width: int, groups: int, config: MotionConfig) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in = nn.Linear(width, width)
        self.transformer_blocks = nn.ModuleList(
            [TemporalTransformerBlock(width, config) for _ in range(config.transformer_blocks)]
        )
        self.proj_out = nn.Linear(width, width)
        # A new motion module starts as the identity, so that training begins from the spatial model.
        for parameter in self.proj_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, frames: int, order: Tensor | None) -> Tensor:
        tokens = self.proj_in(to_tokens(self.norm(x)))
        for block in self.transformer_blocks:
            tokens = block(tokens, frames, order)
        return x + to_image(self.proj_out(tokens), x)


class MotionModule(nn.Module):
    """x (B·frames, c, h, w) → same shape, mixing the frames of each clip.

    `order` (frames,): positions of the frames for the encoding, None for 0, 1, …
    """

    def __init__(self, width: int, groups: int, config: MotionConfig) -> None:
        super().__init__()
        self.temporal_transformer = TemporalTransformer(width, groups, config)

    def forward(self, x: Tensor, frames: int, order: Tensor | None = None) -> Tensor:
        out: Tensor = self.temporal_transformer(x, frames, order)
        return out
