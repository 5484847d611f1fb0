"""Channels that are scaled alike leave the decoder's pictures as they are."""

from __future__ import annotations

import copy

import pytest
import torch

from demo.factory.calibrate import COARSER, FINEST, equalise_by, measured_ranges, tightened
from encoder_worker.vae.decoders import LiteVaeDecoder
from encoder_worker.vae.int8 import with_eight_bits
from encoder_worker.vae.lite_decoder import ResidualBlock

CONFIG = {
    "_class_name": "AutoencoderLite", "latent_channels": 4, "decoder_widths": [16, 8],
    "decoder_blocks": [1, 2], "fine_width": 4, "fine_blocks": 0, "fine_kernel": 3, "scaling_factor": 1.0,
}  # fmt: skip


def uneven_decoder() -> LiteVaeDecoder:
    """A small decoder whose channels differ by a factor of 30."""
    torch.manual_seed(3)
    decoder = LiteVaeDecoder(CONFIG).eval()
    with torch.no_grad():
        for level in decoder.decoder.levels:
            if isinstance(level, ResidualBlock):
                level.conv1.weight[0] *= 30
                level.conv2.weight[:, 0] /= 30
    return decoder


@torch.inference_mode()
def test_pictures_of_both_heads_stay_the_same() -> None:
    decoder, latents = uneven_decoder(), torch.randn(4, 4, 8, 8)
    equal = copy.deepcopy(decoder)
    equalise_by(equal, latents)
    scaled, plain = (each.state_dict()["decoder.levels.0.conv2.weight"] for each in (equal, decoder))
    assert not torch.equal(scaled, plain)
    assert torch.equal(equal(latents), decoder(latents))
    for each in (equal, decoder):
        each.draw_fine()
    assert torch.equal(equal(latents), decoder(latents))


@torch.inference_mode()
def test_eight_bits_come_nearer() -> None:
    decoder, latents = uneven_decoder(), torch.randn(4, 4, 8, 8)
    equal = copy.deepcopy(decoder)
    equalise_by(equal, latents)
    exact = decoder(latents)
    errors = [
        float((with_eight_bits(each, measured_ranges(each, latents))(latents) - exact).square().mean())
        for each in (decoder, equal)
    ]
    assert errors[1] < 0.5 * errors[0]


@torch.inference_mode()
def test_ranges_of_the_finest_level_are_the_tightest() -> None:
    decoder, latents = uneven_decoder(), torch.randn(4, 4, 8, 8)
    ranges = measured_ranges(decoder, latents)
    shares = {name: value / ranges[name] for name, value in tightened(decoder, ranges).items()}
    # The first level has one block, then channels grow, and the last level has two.
    coarse = [share for name, share in shares.items() if name.startswith("decoder.levels.0.")]
    fine = [share for name, share in shares.items() if not name.startswith("decoder.levels.0.")]
    assert coarse == pytest.approx([COARSER] * 2)
    assert fine == pytest.approx([FINEST] * 4)
