"""AutoencoderTiny's decoder in fewer passes: the same pictures."""

from __future__ import annotations

import copy

import pytest
import torch

from encoder_worker.fast.graphed import GraphedDecoder
from encoder_worker.fast.tiny import FusedBlock, fuse_tiny
from encoder_worker.vae.decoders import KLDecoder, TinyDecoder
from scripts.bench.gpu.decode import random_decoder
from scripts.random_model import TAESD, VAE

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


@pytest.fixture(scope="module")
def decoder() -> TinyDecoder:
    made = random_decoder(TAESD)
    assert isinstance(made, TinyDecoder)
    return made


@torch.no_grad()
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (8, 8)])
def test_the_same_pictures(decoder: TinyDecoder, size: tuple[int, int]) -> None:
    fused = copy.deepcopy(decoder)
    assert fuse_tiny(fused.decoder)
    layers = list(fused.decoder.layers)
    assert sum(isinstance(layer, FusedBlock) for layer in layers) == 10 and len(layers) == 15
    latents = torch.randn(2, 4, *size, generator=torch.Generator().manual_seed(0))
    wanted, made = decoder(latents), fused(latents)
    assert made.shape == wanted.shape == (2, 3, 8 * size[0], 8 * size[1])
    assert (made - wanted).abs().max() <= 1e-4 * wanted.abs().max()


def test_other_decoders_stay_as_they_are() -> None:
    network = random_decoder(VAE)
    assert isinstance(network, KLDecoder) and not fuse_tiny(network.decoder)


@torch.inference_mode()
def test_pixels_of_a_fixed_size(decoder: TinyDecoder) -> None:
    """In half precision on a GPU, and in float32 on a CPU: as the modules apart."""
    dtype = torch.float16 if CUDA else torch.float32
    ways = [GraphedDecoder(decoder, DEVICE, dtype, 2, 8, 8, fused=fused) for fused in (True, False)]
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for way in ways:
        way.latents.copy_(latents)
        way.run()
    made, wanted = (way.pixels.cpu().int() for way in ways)
    assert (made - wanted).abs().max() <= 1 and int(ways[0].bad) == 0
