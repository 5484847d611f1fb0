"""Scale the decoder's channels alike, so that eight bits are spent evenly: `equalise`.

One range holds all inputs of a convolution that rounds. Where one channel is ten times as large as another,
the other one gets a tenth of the levels, and still parts flicker from frame to frame. ReLU commutes with
positive factors, so channels can be scaled in the weights without a change of the decoder's function
(cross-layer equalisation, Nagel et al. 2019, arXiv 1906.04721). All factors are powers of two, which scale
floating-point numbers without rounding.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from encoder_worker.vae.lite_decoder import Grow, LiteDecoder, ResidualBlock

#: Least peak of a channel, relative to its layer's greatest: what is never used is not blown up.
LEAST_PEAK = 1 / 64
#: Share of the way, in octaves, to channels that are all alike. What inputs win, weights lose, and they are
#: rounded too (as in SmoothQuant, Xiao et al. 2022, arXiv 2211.10438).
SHARE = 0.6


@torch.no_grad()
def equalise(decoder: LiteDecoder, peaks: Mapping[str, Tensor]) -> None:
    """Scale the decoder's channels in place. Its pictures stay the same.

    Args:
        decoder: its levels are scaled.
        peaks: greatest input (width,) of each block's `conv1` and `conv2`, by names as `levels.0.conv1`.
    """
    leads: list[nn.Conv2d] = [decoder.conv_in]
    blocks: list[tuple[int, ResidualBlock]] = []
    for number, level in enumerate(decoder.levels):
        if isinstance(level, Grow):
            _scale_level(leads, blocks, [level.conv], peaks)
            leads, blocks = [level.conv], []
        elif isinstance(level, ResidualBlock):
            blocks.append((number, level))
    heads = [decoder.conv_out, *([decoder.fine.grow] if decoder.fine is not None else [])]
    _scale_level(leads, blocks, heads, peaks)


def _scale_level(
    leads: list[nn.Conv2d],
    blocks: list[tuple[int, ResidualBlock]],
    follow: list[nn.Conv2d],
    peaks: Mapping[str, Tensor],
) -> None:
    """Scale the features that all blocks of a level add to, and each block's own between its convolutions."""
    if not blocks:
        return
    common = torch.stack([peaks[f"levels.{number}.conv1"] for number, _ in blocks]).amax(0)
    factors = _factors(common)
    for conv in leads:
        _scale_outputs(conv, factors)
    for number, block in blocks:
        own = _factors(peaks[f"levels.{number}.conv2"])
        _scale_inputs(block.conv1, factors)
        _scale_outputs(block.conv1, own)
        _scale_inputs(block.conv2, own)
        _scale_outputs(block.conv2, factors)
    for conv in follow:
        _scale_inputs(conv, factors)


def _factors(peaks: Tensor) -> Tensor:
    """Powers of two (width,) that bring peaks nearer to the median one."""
    held = peaks.clamp_min(float(peaks.max()) * LEAST_PEAK)
    return ((held.median() / held).log2() * SHARE).round().exp2()


def _scale_outputs(conv: nn.Conv2d, factors: Tensor) -> None:
    """Multiply outputs. Before a pixel shuffle, a channel has several in a row."""
    each = factors.repeat_interleave(conv.out_channels // len(factors))
    conv.weight *= each[:, None, None, None]
    if conv.bias is not None:
        conv.bias *= each


def _scale_inputs(conv: nn.Conv2d, factors: Tensor) -> None:
    """Take back the factors of the inputs."""
    conv.weight /= factors[None, :, None, None]
