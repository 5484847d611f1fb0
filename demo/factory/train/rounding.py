"""Train the decoder for eight bits: its convolutions learn from inputs that are rounded.

Served in eight bits, the inputs' rounding is what makes still parts differ (docs/lab/bundled-model.md). A
network that is trained with rounding learns weights that pass less of it on (quantisation-aware training,
Jacob et al. 2018, arXiv 1712.05877). Its gradients pass the rounding as if it were not there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encoder_worker.vae.int8 import rounding_layers
from encoder_worker.vae.lite_decoder import LiteDecoder

#: Steps of the range: seven bits. Their error is twice that of eight bits, so that it counts beside the
#: pictures' own error.
STEPS = 127
#: Range of an input, as a share of its greatest value (as `demo.factory.calibrate.COARSER`).
RANGE = 0.8


def rounded(inputs: Tensor) -> Tensor:
    """Inputs (N, width, h, w) of a convolution, 0 and above, cut off and rounded to steps of their own range.

    Gradients pass the rounding.
    """
    greatest = (RANGE * inputs.detach().amax()).clamp_min(1e-6)
    held = inputs.minimum(greatest)
    with torch.no_grad():
        step = greatest.float() / STEPS
        error = (held.float() / step).round() * step - held
    return held + error.to(held)


def train_for_eight_bits(decoder: LiteDecoder) -> None:
    """Make the convolutions that round when served round their inputs from now on, for training alone.

    The weights and their names stay. A copy of the decoder's weights elsewhere does not round.
    """

    def before(_module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor]:
        return (rounded(inputs[0]),)

    for _, conv in rounding_layers(decoder):
        conv.register_forward_pre_hook(before)
