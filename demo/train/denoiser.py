"""Stages 2 and 3: the denoiser with its reference UNet, motion modules and pose encoder.

    python -m demo.train denoiser --minutes 9 --state DIR      # latents against latents
    python -m demo.train joint --minutes 9 --state DIR         # pictures against pictures, decoder included

Given identity, pose and sound there is one right picture, so the conditional distribution is nearly a point
and a single step from pure noise can be enough. Most batches therefore train timestep 999, where zero
terminal SNR makes the v-prediction exactly minus the clean latent; the rest keep longer schedules usable.
"""

from __future__ import annotations

import logging
import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from audio_worker.whisper import load_whisper
from demo.train.checkpoint import Averaged, load_training, save_training
from demo.train.config import CLIP_FRAMES, FPS, HISTORY_SAMPLES, INFERENCE, SAMPLE_RATE
from demo.train.data import ClipBatch, Material
from demo.train.models import build_networks
from demo.train.vae import AutoencoderLite, picture_loss, picture_weights, warm_cosine
from protocol.audio_tokens import audio_token_positions

logger = logging.getLogger(__name__)

LAST_TIMESTEP = 999
NOISE_LIMIT = 1.5
KEEP, FRESH = 0.6, 0.4  # latent preservation, as the GPU worker mixes it
CARRIED_NOISE = 0.1  # the carried latent is a predicted one when serving, never quite the truth


@dataclass
class Batch:
    """What the denoiser sees: latents (B, C, F, h, w) and conditions."""

    clean: Tensor
    carried: Tensor  # (B, C, h, w): the latent of the frame before the clip
    reference: Tensor  # (B, C, h, w)
    tokens: Tensor  # (B, F, T, 384)
    poses: Tensor  # (B, 3, F, H, W) 0..1


class Conditions:
    """Turns drawn clips into the denoiser's inputs with the frozen VAE encoder and Whisper."""

    def __init__(self, vae: AutoencoderLite, whisper: Path, device: torch.device, margin: int = 2) -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.whisper = load_whisper(whisper).to(device).eval().requires_grad_(False)
        self.margin = margin
        self.device = device

    @torch.no_grad()
    def __call__(self, clips: ClipBatch, fps: int, only: range | None = None) -> Batch:
        count, frames = clips.pictures.shape[:2]
        only = only or range(frames - 1)
        with torch.autocast(self.device.type, torch.bfloat16):
            pictures = clips.pictures.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            latents = self.vae.encode(pictures).float().unflatten(0, (count, frames))
            reference = self.vae.encode(clips.reference.contiguous(memory_format=torch.channels_last)).float()
        heard = self.whisper.features(clips.pcm, "short")  # (B, 75, 5, 384)
        positions = audio_token_positions(
            only.stop, fps, heard.shape[1], margin=self.margin, offset=HISTORY_SAMPLES * 50 // SAMPLE_RATE
        )
        index = torch.as_tensor(positions[only.start :], device=self.device)  # (F, positions)
        tokens = heard[:, index].flatten(2, 3)  # (B, F, positions × 5, 384)
        return Batch(
            clean=latents[:, 1:].transpose(1, 2),
            carried=latents[:, 0],
            reference=reference,
            tokens=tokens,
            poses=clips.poses.transpose(1, 2).float() / 255,
        )


def starting_latents(batch: Batch, carry: Tensor) -> Tensor:
    """Clamped noise, whose first frame keeps the carried latent where `carry` (B,) is true."""
    noise = torch.randn_like(batch.clean).clamp_(-NOISE_LIMIT, NOISE_LIMIT)
    carried = batch.carried + CARRIED_NOISE * torch.randn_like(batch.carried)
    mixed = KEEP * carried + FRESH * noise[:, :, 0]
    noise[:, :, 0] = torch.where(carry[:, None, None, None], mixed, noise[:, :, 0])
    return noise


def predict_velocity(networks: nn.Module, batch: Batch, latents: Tensor, timestep: Tensor) -> Tensor:
    return networks(latents, timestep, batch.tokens, batch.poses, batch.reference)


def latent_loss(networks: nn.Module, batch: Batch, alphas: Tensor) -> Tensor:
    """Squared error of the v-prediction; four in five samples at the last timestep."""
    count = len(batch.clean)
    device = batch.clean.device
    anywhere = torch.randint(0, LAST_TIMESTEP, (count,), device=device)
    timestep = torch.where(torch.rand(count, device=device) < 0.8, LAST_TIMESTEP, anywhere)
    noise = starting_latents(batch, (torch.rand(count, device=device) < 0.85) & (timestep == LAST_TIMESTEP))
    alpha = alphas[timestep].view(-1, 1, 1, 1, 1)
    noisy = alpha.sqrt() * batch.clean + (1 - alpha).sqrt() * noise
    velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * batch.clean
    predicted = predict_velocity(networks, batch, noisy, timestep)
    error = (predicted.float() - velocity).square()
    return error.mean() + 0.2 * (predicted.float() - velocity).abs().mean()


def joint_loss(
    networks: nn.Module, vae: AutoencoderLite, batch: Batch, clips: ClipBatch, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Loss of the decoded one-step prediction against the drawn pictures, and its squared error."""
    count, _, frames = batch.clean.shape[:3]
    device = batch.clean.device
    start = starting_latents(batch, torch.rand(count, device=device) < 0.85)
    timestep = torch.full((count,), LAST_TIMESTEP, device=device)
    predicted = -predict_velocity(networks, batch, start, timestep)
    flat = predicted.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    output = vae.decode(flat)
    truth = clips.pictures[:, 1:].flatten(0, 1)
    loss = picture_loss(output, truth, weights)
    # Motion between frames is compared too: a flicker costs little in each picture and much to the eye.
    moved = output.float().unflatten(0, (count, frames)).diff(dim=1) - clips.pictures[:, 1:].diff(dim=1)
    loss = loss + 0.5 * moved.abs().mean() + 0.05 * (predicted.float() - batch.clean).square().mean()
    return loss, (output.float() - truth).square().mean()


def pick_rate(step: int) -> tuple[int, int]:
    """(fps, frames) of a step: every eighth batch is one of the slower rates a weak machine falls back to."""
    if step % 16 == 7:
        return 12, CLIP_FRAMES // 2
    if step % 16 == 15:
        return 8, CLIP_FRAMES // 3
    return FPS, CLIP_FRAMES


def train_denoiser(
    material: Material,
    state: Path,
    whisper: Path,
    *,
    joint: bool,
    minutes: float,
    batch: int,
    peak: float,
    final: float,
    compile_model: bool,
) -> None:
    device = material.device
    vae = AutoencoderLite().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    vae_average = Averaged(vae)
    load_training(state, "vae", vae, vae_average)
    vae.load_state_dict(vae_average.module.state_dict())
    conditions = Conditions(vae, whisper, device)
    networks = build_networks().to(device, memory_format=torch.channels_last)
    averaged = Averaged(networks)
    parameters = list(networks.parameters())
    if joint:
        vae.decoder.requires_grad_(True)
        parameters += list(vae.decoder.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.99), weight_decay=1e-3, fused=True)
    step = load_training(state, "networks", networks, averaged, None if joint else optimizer)
    compiled = torch.compile(networks) if compile_model else networks
    alphas = DDIMScheduler(**INFERENCE["noise_scheduler_kwargs"]).alphas_cumprod.to(device)
    weights = picture_weights(material)
    began, first = time.monotonic(), step
    while (progress := (time.monotonic() - began) / (60 * minutes)) < 1:
        for group in optimizer.param_groups:
            group["lr"] = warm_cosine(step - first, progress, peak, final)
        fps, frames = pick_rate(step)
        clips = material.clips(batch, fps=fps, frames=frames)
        inputs = conditions(clips, fps)
        # The slower rates are rare: compiling for their lengths too would cost more than it saves.
        network = compiled if fps == FPS else networks
        with torch.autocast(device.type, torch.bfloat16):
            if joint:
                loss, error = joint_loss(network, vae, inputs, clips, weights)
            else:
                loss = latent_loss(network, inputs, alphas)
                error = loss.detach()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        averaged.update(networks)
        if joint:
            vae_average.update(vae)
        step += 1
        if step % 100 == 0:
            figure = -10 * math.log10(float(error))
            logger.info(
                "%s step %d loss %.4f %s %.2f %.0f s",
                "joint" if joint else "denoiser",
                step,
                float(loss),
                "psnr" if joint else "-10log10(loss)",
                figure,
                time.monotonic() - began,
            )  # fmt: skip
    save_training(state, "networks", networks, averaged, optimizer, step)
    if joint:
        save_training(state, "vae", vae, vae_average, torch.optim.AdamW(vae.parameters()), step)
