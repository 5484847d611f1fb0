"""Decoded frames of clips against drawn ones: a part of the denoiser's loss."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from demo.factory.train.both_sizes import BothSizes, hand_weights
from demo.factory.train.data import Moments, halved
from demo.factory.train.vae import LATENT_NOISE, AutoencoderLite, picture_loss

SHOWN = 4  # neighbouring frames of a clip that are decoded in a step
TOLD = 2  # frames whose true latents are decoded as well, as the VAE's own training does

#: Decodes latents (N, C, h, w) and compares them with drawn pictures, float32 (N, 3, H, W), of some moments.
#: Its values are the loss, and output and truth of the smaller size.
Comparison = Callable[[Tensor, Tensor, Moments], tuple[Tensor, Tensor, Tensor]]


def compare_one_size(decode: Callable[[Tensor], Tensor], weights: Tensor) -> Comparison:
    """The comparison of pictures of `SIZE`, with weights (1, 1, SIZE, SIZE) of the pixels."""

    def compare(latents: Tensor, truth: Tensor, moments: Moments) -> tuple[Tensor, Tensor, Tensor]:
        output = decode(latents)
        loss = picture_loss(output, truth, weights * hand_weights(moments.hands, truth.shape[-1]))
        return loss, output, truth

    return compare


def compare_both_sizes(vae: AutoencoderLite, sizes: BothSizes) -> Comparison:
    """The comparison of pictures of both heads with truth of `FINE_SIZE`."""

    def compare(latents: Tensor, truth: Tensor, moments: Moments) -> tuple[Tensor, Tensor, Tensor]:
        plain, fine = vae.decode_both(latents)
        loss = sizes.loss(plain, fine, truth, moments, frames=SHOWN + TOLD)
        return loss, plain, halved(truth)

    return compare


def shared_normal(like: Tensor, together: int) -> Tensor:
    """Normal noise of a shape (B, …). Each `together` neighbours have the same, which divides B."""
    return torch.randn_like(like[::together]).repeat_interleave(together, 0)


def pictures_loss(
    compare: Comparison,
    clean: Tensor,
    predicted: Tensor,
    truth: Tensor,
    moments: Moments,
    *,
    together: int = 1,
) -> tuple[Tensor, Tensor]:
    """Loss of decoded frames against drawn ones, and the squared error of the predicted ones.

    Args:
        compare: decodes and compares.
        clean: true latents (B, C, F, h, w).
        predicted: predicted latents (B, C, F, h, w).
        truth: drawn pictures, uint8 (B, F, 3, H, W).
        moments: of the clips (B, F).
        together: neighbours with the same noise.
    """
    count, _, frames = clean.shape[:3]
    device = clean.device
    first = torch.randint(0, frames - SHOWN + 1, (), device=device)
    shown = first + torch.arange(SHOWN, device=device)
    told = torch.randint(0, frames, (TOLD,), device=device)
    true = clean.index_select(2, told)
    true = true + LATENT_NOISE * shared_normal(true, together)
    latents = torch.cat([predicted.index_select(2, shown), true], dim=2)
    flat = latents.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
    decoded = torch.cat([shown, told])
    drawn = (truth.index_select(1, decoded).float() / 255).flatten(0, 1)
    loss, output, wanted = compare(flat, drawn, moments.frames(decoded))
    # Motion between frames is compared too: a flicker costs little in each picture and much to the eye.
    output, wanted = (x.float().unflatten(0, (count, -1))[:, :SHOWN] for x in (output, wanted))
    loss = loss + 0.5 * (output.diff(dim=1) - wanted.diff(dim=1)).abs().mean()
    return loss, (output - wanted).square().mean()
