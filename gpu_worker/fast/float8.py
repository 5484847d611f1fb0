"""Linear layers in float8 (e4m3), with one scale a tensor, taken from activations of a real clip.

float8's rounding does not depend on the scale as long as nothing overflows or vanishes, so one scale a tensor
serves. Twice the largest value seen still fits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from gpu_worker.fast.ops import FLOAT8_MAX, TorchOps
from gpu_worker.fast.weights import Float8, Linear, Network, SplitRule

MARGIN = 2.0
#: The feed-forward's second layer stays as it is below this width, where adding its result costs the gain.
NARROW = 640


class Tops(Protocol):
    """The largest values that entered each layer, from one start to the next."""

    def load(self, count: int) -> Sequence[float] | None:
        """Those of `count` layers in the order of `layers_of`, or None."""

    def store(self, tops: Sequence[float]) -> None:
        """Keeps them."""


def layers_of(network: Network) -> list[Linear]:
    """The layers that a tier with float8 rounds: queries, keys and values, and the feed-forwards."""
    chosen: list[Linear] = []
    layers = [layer for level in (*network.down, *network.up) for layer in level.layers]
    for layer in [*layers, *(network.middle or ())]:
        if layer.spatial is not None:
            chosen += [layer.spatial.qkv, layer.spatial.ff_in, layer.spatial.ff_out]
        for block in layer.motion.blocks if layer.motion is not None else ():
            chosen += [a.qkv for a in block.attentions] + [block.ff_in, block.ff_out]
    return [x for x in chosen if not (x.weight.shape[1] > x.weight.shape[0] and len(x.weight) < NARROW)]


class WatchingOps(TorchOps):
    """Plain stages that note the largest value which enters each linear layer."""

    def __init__(self, split: SplitRule) -> None:
        super().__init__(split)
        self.largest: dict[int, Tensor] = {}

    def linear(self, x: Tensor, layer: Linear) -> Tensor:
        self._note(x, layer)
        return super().linear(x, layer)

    def add_linear(self, into: Tensor, x: Tensor, layer: Linear) -> None:
        self._note(x, layer)
        super().add_linear(into, x, layer)

    def _note(self, x: Tensor, layer: Linear) -> None:
        value = x.abs().amax().float()
        before = self.largest.get(id(layer))
        self.largest[id(layer)] = value if before is None else torch.maximum(before, value)


def quantize(layers: list[Linear], tops: Sequence[float]) -> None:
    """Gives each layer its float8 form, from the largest values that entered it."""
    for layer, top in zip(layers, tops, strict=True):
        device = layer.weight.device
        input_scale = FLOAT8_MAX / (MARGIN * top) if top > 0 else 1.0
        weight_scale = FLOAT8_MAX / max(float(layer.weight.abs().amax()), 1e-12)
        weight = (layer.weight.float() * weight_scale).clamp(-FLOAT8_MAX, FLOAT8_MAX).to(torch.float8_e4m3fn)
        inverse = tuple(torch.tensor(1 / s, device=device) for s in (input_scale, weight_scale))
        layer.float8 = Float8(weight, weight_scale, input_scale, (inverse[0], inverse[1]))
