"""AutoencoderTiny's decoder in fewer passes over memory: the same sums, biases and ReLU in the convolutions.

Its convolutions are so narrow (64 channels) that reading and writing features takes most of the time. A block
of three convolutions passes over them 21 times as torch runs it, and 7 times here. Nearest-neighbour doubling
goes into the convolution after it, and the last convolution's three outputs are filled up to eight, which
cuDNN's kernels for tensor cores ask for.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoder_worker.vae.doubling import DoublingConv
from protocol.model.vae_network import TinyDecoderNetwork, TinyVaeBlock

#: Channels of which a convolution's outputs are a multiple on tensor cores.
OUTPUTS_STEP = 8

_ONE, _PADDING = [1, 1], [1, 1]


class ReluConv(nn.Module):
    """relu(conv(x) [+ residual]) of a 3×3 convolution, on CUDA by one kernel of cuDNN."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        if not x.is_cuda:
            made = F.conv2d(x, self.weight, self.bias, padding=1)
            return F.relu(made if residual is None else made + residual)
        if residual is None:
            return torch.cudnn_convolution_relu(x, self.weight, self.bias, _ONE, _PADDING, _ONE, 1)
        return torch.cudnn_convolution_add_relu(
            x, self.weight, residual, 1.0, self.bias, _ONE, _PADDING, _ONE, 1
        )


class FusedBlock(nn.Module):
    """A `TinyVaeBlock`."""

    def __init__(self, block: TinyVaeBlock) -> None:
        super().__init__()
        layers: Any = block.conv
        self.first, self.second, self.third = (ReluConv(layers[i]) for i in (0, 2, 4))

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.third(self.second(self.first(x)), x)
        return made


class FilledConv(nn.Module):
    """A 3×3 convolution whose outputs are computed together with zeros, up to a multiple of eight."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self._outputs = conv.out_channels
        more = -conv.out_channels % OUTPUTS_STEP
        self.weight = nn.Parameter(F.pad(conv.weight, (0, 0, 0, 0, 0, 0, 0, more)), requires_grad=False)
        bias = None if conv.bias is None else F.pad(conv.bias, (0, more))
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias, padding=1)[:, : self._outputs]


@torch.no_grad()
def fuse_tiny(network: nn.Module) -> bool:
    """Replaces the layers of AutoencoderTiny's decoder. Returns whether this is one."""
    if not isinstance(network, TinyDecoderNetwork):
        return False
    given = list(network.layers)
    made: list[nn.Module] = []
    for place, layer in enumerate(given):
        before = given[place - 1] if place else None
        if isinstance(layer, TinyVaeBlock):
            made.append(FusedBlock(layer))
        elif isinstance(layer, nn.Conv2d) and isinstance(before, nn.Upsample):
            made.append(DoublingConv(layer))
        elif isinstance(layer, nn.Conv2d):
            made.append(FilledConv(layer) if layer is given[-1] else ReluConv(layer))
        # a ReLU belongs to the convolution before it, and a doubling to the one after it
    network.layers = nn.Sequential(*made)
    return True
