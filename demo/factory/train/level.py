"""Give each head of the decoder the contrast and the brightness of the drawings.

    python -m demo.factory.train level --state DIR --figure FILE --contrast 1.02

Weights between two trainings keep the form of what both draw, and seldom its contrast: activations of a blend
are weaker or stronger than those of either end (REPAIR, Jordan et al. 2023). One gain and one offset for each
colour of each head put right what has come out at the end. They become part of the head's last convolution.

Least squares leave pictures a little paler than drawn ones, because what a network is unsure of it draws
grey. So the lab chooses the contrast: more of it keeps more edges, and makes each error larger.
"""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo.factory.train.data import Material, halved
from demo.factory.train.vae import AutoencoderLite

logger = logging.getLogger(__name__)

PICTURES, AT_ONCE = 96, 8
COLORS = 3


def line_of(output: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Gain and offset (3,) that bring `output` nearest to `truth`, both (N, 3, h, w), by least squares."""
    x, y = (pictures.transpose(0, 1).flatten(1).double() for pictures in (output, truth))
    mean_x, mean_y = x.mean(1), y.mean(1)
    gain = (x * y).mean(1) - mean_x * mean_y
    gain = gain / (x.square().mean(1) - mean_x.square())
    return gain.float(), (mean_y - gain * mean_x).float()


@torch.no_grad()
def scale_colors(last: nn.Conv2d, gain: Tensor, offset: Tensor) -> None:
    """Let a convolution before a pixel shuffle, which makes the colours, make `gain` · x + `offset`."""
    places = last.out_channels // COLORS
    last.weight *= gain.repeat_interleave(places)[:, None, None, None]
    assert last.bias is not None
    last.bias.copy_(last.bias * gain.repeat_interleave(places) + offset.repeat_interleave(places))


@torch.no_grad()
def level(vae: AutoencoderLite, truth: Tensor, contrast: float = 1.0) -> dict[str, Tensor]:
    """Level both heads by drawn pictures.

    Args:
        vae: its decoder changes.
        truth: pictures (N, 3, FINE_SIZE, FINE_SIZE) in 0..1.
        contrast: contrast of the result, where that of least squares is 1.

    Returns:
        The gains (3,) of least squares by the head's name.
    """
    decoder = vae.decoder
    assert decoder.fine is not None, "the configuration names a finer head"
    plain, fine = [], []
    for some in truth.split(AT_ONCE):
        features = decoder.features(vae.encode(halved(some)))
        plain.append(decoder.plain(features))
        fine.append(decoder.fine(features))
    gains = {}
    heads = (
        ("plain", decoder.conv_out, plain, halved(truth)),
        ("fine", decoder.fine.conv_out, fine, truth),
    )
    for name, last, made, wanted in heads:
        drawn = 2 * wanted - 1
        gains[name], offset = line_of(torch.cat(made), drawn)
        mean = drawn.mean((0, 2, 3))
        scale_colors(last, contrast * gains[name], mean + contrast * (offset - mean))
    return gains


def level_state(material: Material, state: Path, contrast: float = 1.0) -> None:
    """Level the decoder of a training state, its weights and its running average.

    Args:
        material: draws at `FINE_SIZE`.
        state: folder of the training state.
        contrast: as in `level`.
    """
    parts = [material.drawings(AT_ONCE)[0].clone() for _ in range(0, PICTURES, AT_ONCE)]
    truth = torch.cat(parts)
    vae = AutoencoderLite().to(material.device).eval()
    for kind in ("weights", "average"):
        file = state / f"vae.{kind}.safetensors"
        vae.load_state_dict(load_file(file))
        gains = level(vae, truth, contrast)
        save_file({key: value.contiguous().cpu() for key, value in vae.state_dict().items()}, file)
        for head, gain in gains.items():
            logger.info("level: gains of vae.%s, %s: %s", kind, head, [round(g, 4) for g in gain.tolist()])
