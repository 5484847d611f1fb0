"""Stage 1: the VAE. It is the ceiling of everything after it, so it comes first.

python -m demo.train vae --minutes 8 --state DIR
"""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from demo.figure.measure import mouth_center
from demo.train.checkpoint import Averaged, load_training, save_training
from demo.train.config import VAE
from demo.train.data import Material
from encoder_worker.lite_decoder import LiteDecoder
from gpu_worker.lite_encoder import LiteEncoder

logger = logging.getLogger(__name__)

LATENT_NOISE = 0.06  # the decoder later sees predicted latents, so it learns to forgive small errors


class AutoencoderLite(nn.Module):
    """Encoder and decoder together, as they are trained; serving loads one half in each process."""

    def __init__(self) -> None:
        super().__init__()
        encoder = LiteEncoder(VAE)
        self.encoder = encoder.encoder
        self.decoder = LiteDecoder(VAE)

    def encode(self, pictures: Tensor) -> Tensor:
        """(N, 3, H, W) in 0..1 → latents (N, C, h, w)."""
        return self.encoder(pictures * 2 - 1)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents → (N, 3, H, W) nominally in 0..1."""
        return self.decoder(latents) * 0.5 + 0.5


def picture_weights(material: Material) -> Tensor:
    """(1, 1, SIZE, SIZE) loss weights: the mouth counts four times, because eyes go there first."""
    size = material.renderer.size
    weights = torch.ones(1, 1, size, size, device=material.device)
    middle = mouth_center(material.renderer, torch.zeros(1, 3, device=material.device))[0]
    x, y = (int(v) for v in middle.tolist())
    reach_x, reach_y = round(0.10 * size), round(0.08 * size)
    weights[..., y - reach_y : y + reach_y, x - reach_x : x + reach_x] = 4.0
    return weights


def picture_loss(output: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Absolute, squared and edge differences: the first two set PSNR, the third keeps outlines sharp."""
    difference = (output - truth).float()
    dx = (output[..., 1:] - output[..., :-1]).float() - (truth[..., 1:] - truth[..., :-1]).float()
    dy = (output[..., 1:, :] - output[..., :-1, :]).float() - (truth[..., 1:, :] - truth[..., :-1, :]).float()
    absolute = (difference.abs() * weights).mean()
    squared = (difference.square() * weights).mean()
    edges = dx.abs().mean() + dy.abs().mean()
    return 0.5 * absolute + 10.0 * squared + 0.5 * edges


def latent_spread(latents: Tensor) -> Tensor:
    """Pulls each channel to mean 0 and variance 1, which is what the sampler's noise schedule expects."""
    values = latents.float().transpose(0, 1).flatten(1)
    return (values.mean(1).square() + (values.var(1) - 1).square()).mean()


def warm_cosine(step: int, progress: float, peak: float, final: float) -> float:
    """Learning rate: 200 steps of warm-up, then a cosine over the share of this call's time that has
    passed.
    """
    return min(1.0, (step + 1) / 200) * (
        final + (peak - final) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    )


def train_vae(
    material: Material,
    state: Path,
    *,
    minutes: float,
    batch: int,
    peak: float,
    final: float,
    compile_model: bool,
) -> None:
    device = material.device
    model = AutoencoderLite().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    averaged = Averaged(model)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-4, fused=True
    )
    step = load_training(state, "vae", model, averaged, optimizer)
    weights = picture_weights(material)

    def loss_of(pictures: Tensor) -> tuple[Tensor, Tensor]:
        with torch.autocast(device.type, torch.bfloat16):
            latents = model.encode(pictures)
            noisy = latents + LATENT_NOISE * torch.randn_like(latents)
            output = model.decode(noisy)
        spread = latent_spread(latents)
        return picture_loss(output, pictures, weights) + 0.01 * spread, (
            output.float() - pictures
        ).square().mean()

    run = torch.compile(loss_of) if compile_model else loss_of
    began, first = time.monotonic(), step
    while (progress := (time.monotonic() - began) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = warm_cosine(step - first, progress, peak, final)
        pictures = material.pictures(batch).contiguous(memory_format=torch.channels_last)
        loss, error = run(pictures)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        averaged.update(model)
        step += 1
        if step % 200 == 0:
            psnr = -10 * math.log10(float(error))
            logger.info(
                "vae step %d loss %.4f psnr %.2f dB %.0f s", step, float(loss), psnr, time.monotonic() - began
            )
    save_training(state, "vae", model, averaged, optimizer, step)
