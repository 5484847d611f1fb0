"""The part of a model that each stage reads, as that stage reads it."""

from __future__ import annotations

from pathlib import Path

import torch

from audio_worker.whisper import load_whisper
from encoder_worker.vae.decoders import load_decoder
from gpu_worker.denoiser.loading import load_models
from protocol.model.config import ModelConfig
from protocol.model.vae_folder import VaeFolder


def load_gpu_worker(config: Path) -> object:
    return load_models(ModelConfig.load(config), torch.device("cpu"), torch.float32)


def load_encoder_worker(config: Path) -> object:
    return load_decoder(VaeFolder.of(ModelConfig.load(config)))


def load_audio_worker(config: Path) -> object:
    return load_whisper(ModelConfig.load(config).audio_model_path, "padded")
