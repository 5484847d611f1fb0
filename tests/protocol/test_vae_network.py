"""The VAEs' networks compute what diffusers' classes compute, with the same parameters."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from torch import nn

from encoder_worker.vae.decoders import KLDecoder
from protocol.model.vae_network import UnusualVae, kl_decoder, kl_encoder, tiny_decoder, tiny_encoder
from protocol.process.settings import ROOT
from scripts.random_model import TAESD, VAE

SMALL_TINY = {**TAESD, "encoder_block_out_channels": [16] * 4, "decoder_block_out_channels": [16] * 4}
WIDE = {**VAE, "block_out_channels": [32, 64, 64, 96], "layers_per_block": 2}


def check(own: nn.Module, official: nn.Module, given: torch.Tensor) -> None:
    """Fails unless both have the same parameters by name, and with one's values in both the same result."""
    state = {key: torch.randn_like(value) * 0.1 for key, value in official.state_dict().items()}
    official.load_state_dict(state)
    own.load_state_dict(state)
    with torch.inference_mode():
        torch.testing.assert_close(own.eval()(given), official.eval()(given), rtol=0, atol=2e-5)


@pytest.mark.parametrize("config", [WIDE, {**VAE, "mid_block_add_attention": False}])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_kl_halves_compute_what_diffusers_does(
    config: dict[str, Any], memory_format: torch.memory_format
) -> None:
    torch.manual_seed(0)
    vae = AutoencoderKL.from_config(config)
    (encoder, quant), (decoder, post_quant) = kl_encoder(config), kl_decoder(config)
    assert quant is not None and post_quant is not None
    assert quant.state_dict().keys() == vae.quant_conv.state_dict().keys()
    assert post_quant.state_dict().keys() == vae.post_quant_conv.state_dict().keys()
    check(encoder, vae.encoder, (torch.rand(2, 3, 32, 48) * 2 - 1).contiguous(memory_format=memory_format))
    check(decoder, vae.decoder, torch.randn(2, 4, 4, 6).contiguous(memory_format=memory_format))


def test_the_small_halves_compute_what_diffusers_does() -> None:
    torch.manual_seed(0)
    vae = AutoencoderTiny.from_config(SMALL_TINY)
    check(tiny_encoder(SMALL_TINY), vae.encoder, torch.rand(2, 3, 32, 48) * 2 - 1)
    check(tiny_decoder(SMALL_TINY), vae.decoder, torch.randn(2, 4, 4, 6) * 3)


@pytest.mark.parametrize(
    "change", [{"act_fn": "relu"}, {"up_block_types": ["AttnUpDecoderBlock2D"] + ["UpDecoderBlock2D"] * 3}]
)
def test_diffusers_builds_other_layers(change: dict[str, Any]) -> None:
    with pytest.raises(UnusualVae):
        kl_decoder(VAE | change)
    official = AutoencoderKL.from_config(VAE | change)
    assert KLDecoder(VAE | change).decoder.state_dict().keys() == official.decoder.state_dict().keys()


def test_building_a_usual_vae_does_not_import_diffusers() -> None:
    """Its import takes seconds of a start."""
    script = (
        "import sys, torch\n"
        "from encoder_worker.vae.decoders import KLDecoder, TinyDecoder\n"
        "from gpu_worker.avatars.vae_encoder import ENCODERS\n"
        f"kl, tiny = {VAE!r}, {TAESD!r}\n"
        "KLDecoder(kl), TinyDecoder(tiny), ENCODERS['AutoencoderKL'](kl), ENCODERS['AutoencoderTiny'](tiny)\n"
        "sys.exit('diffusers' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
