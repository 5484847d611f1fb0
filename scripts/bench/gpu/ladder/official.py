"""The order of work of the official code, for the ladder's first row.

There every self-attention projects keys and values of [frame tokens ; reference tokens] anew for each frame
and step, and every cross-attention those of the audio. The numbers are those of `ClipDenoiser`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from gpu_worker.denoiser.model import DenoisingUNet3D, ReferenceCache
from gpu_worker.denoiser.model.attention import attend
from gpu_worker.denoiser.model.transformer import BlockConditions, TransformerBlock


def features_cache(denoiser: DenoisingUNet3D, bank: dict[str, Tensor]) -> ReferenceCache:
    """The reference's features by slot, in the places of keys and values, for `projecting_everything`."""
    blocks = denoiser.transformer_blocks
    targets = sorted(blocks, key=lambda name: -blocks[name].width)
    sources = sorted(bank, key=lambda name: -bank[name].shape[-1])
    by_slot = {blocks[t].slot: bank[s] for t, s in zip(targets, sources, strict=True)}
    return ReferenceCache(tuple((by_slot[slot], by_slot[slot]) for slot in range(len(by_slot))))


@contextmanager
def projecting_everything() -> Iterator[None]:
    """Within it, the denoiser's self-attentions expect `features_cache` and project it with each frame."""

    def projecting(block: TransformerBlock, x: Tensor, conditions: BlockConditions) -> Tensor:
        attn = block.attn1
        if conditions.reference is None:
            return attn.project_out(attend(attn.to_q(x), *attn.keys_values(x), attn.heads))
        features = conditions.reference[block.slot][0].expand(len(x), -1, -1)
        k, v = attn.keys_values(torch.cat([x, features], 1))
        return attn.project_out(attend(attn.to_q(x), k, v, attn.heads))

    # mypy allows nobody to exchange a method. It is put back at the end.
    before = TransformerBlock.self_attention
    TransformerBlock.self_attention = projecting  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        TransformerBlock.self_attention = before  # type: ignore[method-assign]
