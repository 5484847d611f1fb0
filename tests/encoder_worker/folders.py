"""VAE folders with small random weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import save_file

from encoder_worker.vae.lite_decoder import LiteDecoder


def make_kl(folder: Path, channels: int = 4) -> Any:
    torch.manual_seed(0)
    widths = (8, 16)
    vae: Any = AutoencoderKL(
        block_out_channels=widths, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, latent_channels=channels, sample_size=32,
    )  # fmt: skip
    vae.save_pretrained(folder)
    return vae.eval()


def make_tiny(folder: Path) -> Any:
    torch.manual_seed(0)
    vae: Any = AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8), decoder_block_out_channels=(8, 8, 8),
        num_encoder_blocks=(1, 1, 1), num_decoder_blocks=(1, 1, 1), latent_channels=4,
    )  # fmt: skip
    vae.save_pretrained(folder)
    return vae.eval()


def make_lite(folder: Path, seed: int = 0, *, fine: bool = False) -> LiteDecoder:
    torch.manual_seed(seed)
    config = {
        "_class_name": "AutoencoderLite", "latent_channels": 4, "scaling_factor": 0.5,
        "decoder_widths": [16, 8], "decoder_blocks": [1, 1],
    }  # fmt: skip
    if fine:
        config |= {"fine_width": 4, "fine_blocks": 1, "fine_kernel": 3}
    decoder = LiteDecoder(config)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    state = {f"decoder.{key}": value for key, value in decoder.state_dict().items()}
    state |= {"encoder.conv_in.weight": torch.zeros(1), "quant_conv.weight": torch.zeros(1)}
    save_file(state, folder / "diffusion_pytorch_model.safetensors")
    return decoder.eval()
