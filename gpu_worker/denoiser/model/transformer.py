"""Spatial transformer of both UNets: self-attention with reference, audio cross-attention, feed-forward."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from gpu_worker.denoiser.model.attention import Attention, FeedForward, attend, attend_reference

#: The official code multiplies the audio cross-attention's output by this before adding it.
AUDIO_GAIN = 3.0

KeysValues = tuple[Tensor, Tensor]


@dataclass
class BlockConditions:
    """The inputs of all blocks in one forward pass, beside the hidden states.

    Attributes:
        time: embedding of the timestep after SiLU, (B, time width).
        frames: frames per clip, folded into the batch.
        audio: keys and values (B·frames, tokens, width) by slot of the block, or None in the reference UNet.
        reference: keys and values (B, tokens, width) by slot of the block, or None for no reference.
        order: (frames,) positions of the frames for the motion modules, or None for 0, 1, …
        bank: filled with each block's input after norm1, in the reference UNet, else None.
    """

    time: Tensor
    frames: int
    audio: tuple[KeysValues, ...] | None = None
    reference: tuple[KeysValues, ...] | None = None
    order: Tensor | None = None
    bank: dict[str, Tensor] | None = None


class TransformerBlock(nn.Module):
    """One transformer block. `slot` and `name` are set by the UNet that owns it."""

    slot: int = -1
    name: str = ""

    def __init__(self, width: int, heads: int, cross_attention_dim: int | None) -> None:
        super().__init__()
        self.width = width
        self.norm1 = nn.LayerNorm(width)
        self.attn1 = Attention(width, heads)
        if cross_attention_dim is not None:
            self.norm2 = nn.LayerNorm(width)
            self.attn2 = Attention(width, heads, cross_attention_dim)
        self.norm3 = nn.LayerNorm(width)
        self.ff = FeedForward(width)

    def forward(self, x: Tensor, conditions: BlockConditions) -> Tensor:
        """x (B·frames, tokens, width) → same shape."""
        x = x + self.self_attention(self.norm1(x), conditions)
        if conditions.audio is not None:
            x = x + AUDIO_GAIN * self._cross_attention(self.norm2(x), conditions.audio[self.slot])
        fed: Tensor = self.ff(self.norm3(x))
        return x + fed

    def self_attention(self, x: Tensor, conditions: BlockConditions) -> Tensor:
        """Self-attention over frame and reference: x (B·frames, tokens, width), after norm1 → same shape."""
        if conditions.bank is not None:
            conditions.bank[self.name] = x
        attn = self.attn1
        q, (k, v) = attn.to_q(x), attn.keys_values(x)
        if conditions.reference is None:
            return attn.project_out(attend(q, k, v, attn.heads))
        ref_k, ref_v = conditions.reference[self.slot]
        return attn.project_out(attend_reference(q, k, v, ref_k, ref_v, attn.heads))

    def _cross_attention(self, x: Tensor, audio: KeysValues) -> Tensor:
        attn = self.attn2
        return attn.project_out(attend(attn.to_q(x), *audio, attn.heads))


class SpatialTransformer(nn.Module):
    """norm → 1×1 in → transformer block → 1×1 out → + input, over the positions of each frame."""

    def __init__(self, width: int, heads: int, groups: int, cross_attention_dim: int | None) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, width, eps=1e-6)
        self.proj_in = nn.Conv2d(width, width, 1)
        self.transformer_blocks = nn.ModuleList([TransformerBlock(width, heads, cross_attention_dim)])
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, conditions: BlockConditions) -> Tensor:
        """x (B·frames, c, h, w) → same shape."""
        tokens = _pointwise(self.proj_in, to_tokens(self.norm(x)))
        for block in self.transformer_blocks:
            tokens = block(tokens, conditions)
        return x + to_image(_pointwise(self.proj_out, tokens), x)


def to_tokens(x: Tensor) -> Tensor:
    """(N, c, h, w) → (N, h·w, c), a view where x is channels_last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def to_image(tokens: Tensor, like: Tensor) -> Tensor:
    """(N, h·w, c) → (N, c, h, w) of `like`'s height and width, a channels_last view."""
    rows: Tensor = tokens.unflatten(1, like.shape[-2:])
    return rows.permute(0, 3, 1, 2)


def _pointwise(conv: nn.Conv2d, tokens: Tensor) -> Tensor:
    # A 1×1 convolution is a linear layer over tokens, which need no transposing here.
    return F.linear(tokens, conv.weight.flatten(1), conv.bias)
