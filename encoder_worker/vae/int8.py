"""The decoder with eight-bit products, for OpenVINO.

The 3×3 convolutions of the residual blocks do nearly all of the light decoder's work. Each of them rounds its
input to 256 levels and its weights to 255 levels an output channel. All else stays as it is. OpenVINO
recognises the rounding and multiplies whole numbers. Rounding the other convolutions too won no time here,
and the pictures were 4 dB further from those of float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoder_worker.graph_decoder import RANGES_FILE
from encoder_worker.vae.decoders import Decoder
from encoder_worker.vae.lite_decoder import ResidualBlock
from encoder_worker.vae.ranges import (
    INPUT_LEVELS,
    LEAST_INPUT,
    LEAST_WEIGHT,
    WEIGHT_LEVELS,
    read_table,
    tensors_digest,
)
from protocol.model.ranges_table import Ranges, write_ranges_table


class EightBitConv(nn.Module):
    """A convolution of rounded inputs with rounded weights.

    Args:
        conv: the convolution in float32.
        greatest: input above which values are cut off. Below 0 they are too.
    """

    weight_steps: Tensor
    weight_zeros: Tensor

    def __init__(self, conv: nn.Conv2d, greatest: float) -> None:
        super().__init__()
        self.conv = conv
        self._input_step = max(greatest, LEAST_INPUT) / INPUT_LEVELS
        peaks = conv.weight.detach().abs().amax((1, 2, 3)).clamp_min(LEAST_WEIGHT)
        self.register_buffer("weight_steps", peaks / WEIGHT_LEVELS)
        self.register_buffer("weight_zeros", torch.zeros(len(peaks), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, h, w) → (N, out, h, w)."""
        conv = self.conv
        rounded = torch.fake_quantize_per_tensor_affine(x, self._input_step, 0, 0, INPUT_LEVELS)
        weight = torch.fake_quantize_per_channel_affine(
            conv.weight, self.weight_steps, self.weight_zeros, 0, -WEIGHT_LEVELS, WEIGHT_LEVELS
        )
        return F.conv2d(rounded, weight, conv.bias, padding=conv.padding)


def rounding_layers(decoder: nn.Module) -> Iterator[tuple[str, nn.Conv2d]]:
    """The convolutions that may round, with their names. Empty for a decoder without such blocks."""
    for name, block in decoder.named_modules():
        if isinstance(block, ResidualBlock):
            yield f"{name}.conv1", block.conv1
            yield f"{name}.conv2", block.conv2


def with_eight_bits(decoder: Decoder, ranges: Ranges) -> Decoder:
    """A copy of the decoder that rounds.

    Args:
        decoder: in float32.
        ranges: of all its `rounding_layers`.
    """
    rounding = copy.deepcopy(decoder)
    for name, conv in list(rounding_layers(rounding)):
        block, _, own_name = name.rpartition(".")
        setattr(rounding.get_submodule(block), own_name, EightBitConv(conv, ranges[name]))
    return rounding


def read_ranges(folder: Path, decoder: Decoder) -> Ranges | None:
    """The ranges beside the weights, or None where there are none for these weights. The log says why.

    Args:
        folder: of the VAE.
        decoder: as it was loaded, in float32.
    """
    return read_table(folder, weights_digest(decoder), [name for name, _ in rounding_layers(decoder)])


def write_ranges(folder: Path, decoder: Decoder, ranges: Ranges) -> Path:
    """Writes the ranges of a decoder's layers beside its weights. Returns the file."""
    file = folder / RANGES_FILE
    write_ranges_table(
        file, weights_digest(decoder), {name: round(greatest, 4) for name, greatest in ranges.items()}
    )
    return file


def weights_digest(decoder: Decoder) -> str:
    """A digest of the decoder's weights."""
    return tensors_digest((name, value.numpy()) for name, value in decoder.state_dict().items())
