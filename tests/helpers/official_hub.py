"""The Hub's repositories of the official weights: files of the true form, with a small random model."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch

from audio_worker.whisper import _huggingface_key
from scripts.official.catalogue import BASE, ECHOMIMIC, TAESD, VAE, WHISPER
from tests.helpers.official_layout import write_official_layout

Repositories = dict[str, dict[str, bytes]]


def official_repositories(folder: Path) -> Repositories:
    """Content by file and repository. Writes the official layout into `folder`."""
    write_official_layout(folder)
    weights = folder / "pretrained_weights"
    names = ("denoising_unet_acc.pth", "motion_module_acc.pth", "reference_unet.pth", "pose_encoder.pth")
    vae = ("config.json", "diffusion_pytorch_model.safetensors")
    base = "sd-image-variations-diffusers/unet/config.json"
    return {
        ECHOMIMIC: {name: (weights / name).read_bytes() for name in names},
        VAE: {name: (weights / "sd-vae-ft-mse" / name).read_bytes() for name in vae},
        BASE: {"unet/config.json": (weights / base).read_bytes()},
        WHISPER: {"model.safetensors": _huggingface_whisper(weights / "audio_processor/tiny.pt")},
        TAESD: {name: (weights / "taesd" / name).read_bytes() for name in vae},
    }


def _huggingface_whisper(openai: Path) -> bytes:
    """OpenAI's file in the Hub's form: other names, and float32."""
    state = torch.load(openai, weights_only=True)["model_state_dict"]
    renamed = {
        f"model.encoder.{_huggingface_key(key.removeprefix('encoder.'))}": value.float()
        for key, value in state.items()
        if key.startswith("encoder.")
    }
    return safetensors.torch.save({**renamed, "model.decoder.layer_norm.weight": torch.ones(384)})
