"""Stage 1: the VAE. It is the ceiling of everything after it, so it comes first.

python -m demo.factory.train vae --minutes 8 --state DIR
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from demo.factory.figure.measure import mouth_center
from demo.factory.train.checkpoint import Averaged, load_training
from demo.factory.train.config import SIZE, VAE
from demo.factory.train.data import Material
from demo.factory.train.models import channels_last
from demo.factory.train.replay import Replay
from demo.factory.train.step import Gradients, GraphedLoss, TrainingRun, make_optimizer, share_weights
from encoder_worker.vae.lite_decoder import LiteDecoder
from gpu_worker.avatars.lite_encoder import LiteEncoder

USES = 4  # times that a drawn picture is learned from, on average
MEMORY = 16384
CONTRAST = 6.0  # how many times more than plain colour an outline counts
OUTLINE = 0.08  # mean step between neighbouring pixels that counts as nothing but outline
FAINT = 0.01  # steps between pixels far below which nobody sees an outline
LATENT_NOISE = 0.08  # the decoder later sees predicted latents, so it learns to forgive small errors


class AutoencoderLite(nn.Module):
    """Encoder and decoder together, as they are trained. Serving loads one half in each process."""

    def __init__(self) -> None:
        super().__init__()
        encoder = LiteEncoder(VAE)
        self.encoder = encoder.encoder
        self.decoder = LiteDecoder(VAE)

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents (N, C, h, w) of pictures (N, 3, H, W) in 0..1."""
        latents: Tensor = self.encoder(pictures * 2 - 1)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (N, 3, H, W), nominally in 0..1, of latents (N, C, h, w)."""
        output: Tensor = self.decoder(latents)
        return output * 0.5 + 0.5

    def decode_both(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures of either head, (N, 3, H, W) and (N, 3, 2H, 2W), as those of `decode`."""
        features = self.decoder.features(latents)
        assert self.decoder.fine is not None, "the configuration names a finer head"
        return self.decoder.plain(features) * 0.5 + 0.5, self.decoder.fine(features) * 0.5 + 0.5


def picture_weights(material: Material, size: int = SIZE) -> Tensor:
    """Loss weights (1, 1, size, size). The mouth counts four times, because eyes go there first."""
    weights = torch.ones(1, 1, size, size, device=material.device)
    middle = mouth_center(material.renderer, torch.zeros(1, 3, device=material.device))[0]
    x, y = (int(v) for v in (middle * size / material.renderer.size).tolist())
    reach_x, reach_y = round(0.10 * size), round(0.08 * size)
    weights[..., y - reach_y : y + reach_y, x - reach_x : x + reach_x] = 4.0
    return weights


def local_contrast(pictures: Tensor) -> Tensor:
    """Amount of outline (N, 1, H, W) in the 5×5 pixels around each pixel. `OUTLINE` and more is 1.

    Args:
        pictures: (N, 3, H, W) in 0..1.
    """
    dx, dy = (pictures.diff(dim=axis).abs().mean(1, keepdim=True) for axis in (3, 2))
    return (_around(dx, dy) / OUTLINE).clamp(max=1.0)


def picture_loss(output: Tensor, truth: Tensor, weights: Tensor, *, squared_share: float = 1.0) -> Tensor:
    """Absolute, squared and edge differences. The first two set PSNR, the others keep outlines sharp.

    All are weighed by `weights` and by the drawing's local contrast. Fingers and lips are a hundredth of a
    picture that is mostly plain, and they smear first.
    """
    return weighted_difference(output, truth, at_outlines(weights, truth), squared_share=squared_share)


def at_outlines(weights: Tensor, truth: Tensor) -> Tensor:
    """Weights (N, 1, H, W) that count outlines of `truth` (N, 3, H, W) more."""
    return weights * (1 + CONTRAST * local_contrast(truth))


def weighted_difference(output: Tensor, truth: Tensor, weights: Tensor, *, squared_share: float) -> Tensor:
    """`picture_loss` with weights (N, 1, H, W) that know the outlines already."""
    difference = (output - truth).float()
    dx, dy = difference.diff(dim=3), difference.diff(dim=2)
    across, down = weights[..., 1:], weights[..., 1:, :]
    absolute = (difference.abs() * weights).mean()
    squared = (difference.square() * weights).mean()
    edges = (dx.abs() * across).mean() + (dy.abs() * down).mean()
    squared_edges = (dx.square() * across).mean() + (dy.square() * down).mean()
    return 0.5 * absolute + 0.5 * edges + squared_share * (10.0 * squared + 5.0 * squared_edges)


def strength_loss(output: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """Difference of the outlines' strength from the drawing's, wherever within 5×5 pixels they lie.

    If an outline may lie here or there, differences pixel by pixel are least where it is drawn weakly in both
    places. This loss is least where it is as strong as the drawing's. It has the weights of `picture_loss`.
    """
    return weighted_strength(output, truth, at_outlines(weights, truth))


def weighted_strength(output: Tensor, truth: Tensor, weights: Tensor) -> Tensor:
    """`strength_loss` with weights (N, 1, H, W) that know the outlines already."""
    return ((_local_strength(output) - _local_strength(truth)).abs() * weights).mean()


def _local_strength(pictures: Tensor) -> Tensor:
    """Root mean square (N, 1, H, W) of the steps between pixels, over 5×5 of them."""
    dx, dy = (pictures.float().diff(dim=axis).square().mean(1, keepdim=True) for axis in (3, 2))
    return (_around(dx, dy) + FAINT**2).sqrt()


def _around(dx: Tensor, dy: Tensor) -> Tensor:
    """Steps around each pixel (N, 1, H, W): both directions added, averaged over 5×5 pixels.

    Args:
        dx: steps (N, 1, H, W-1) to the next pixel across.
        dy: steps (N, 1, H-1, W) to the next pixel down.
    """
    return F.avg_pool2d(F.pad(dx, (0, 1)) + F.pad(dy, (0, 0, 0, 1)), 5, stride=1, padding=2)


def to_bytes(pictures: Tensor) -> Tensor:
    """Pictures in 0..1 as uint8, which is how they are kept."""
    return (pictures * 255).round().to(torch.uint8)


def latent_spread(latents: Tensor) -> Tensor:
    """Loss that pulls each channel to mean 0 and variance 1, as the sampler's noise schedule expects."""
    values = latents.float().transpose(0, 1).flatten(1)
    return (values.mean(1).square() + (values.var(1) - 1).square()).mean()


def vae_loss(model: AutoencoderLite, pictures: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Loss of pictures (N, 3, H, W) sent through both halves with noisy latents, and their squared error."""
    with torch.autocast(pictures.device.type, torch.bfloat16):
        latents = model.encode(pictures)
        noisy = latents + LATENT_NOISE * torch.randn_like(latents)
        output = model.decode(noisy)
    loss = picture_loss(output, pictures, weights) + 0.01 * latent_spread(latents)
    return loss, (output.float() - pictures).square().mean()


def train_vae(
    material: Material,
    state: Path,
    *,
    minutes: float,
    batch: int,
    peak: float,
    final: float,
    compile_model: bool,
    memory: int = MEMORY,
) -> None:
    """Train encoder and decoder for `minutes`. `memory` pictures are kept and learned from again."""
    device = material.device
    model = channels_last(AutoencoderLite(), device)
    averaged = Averaged(model)
    optimizer = make_optimizer(list(model.parameters()), weight_decay=1e-4)
    step = load_training(state, "vae", model, averaged, optimizer)
    share_weights([model, averaged.module])
    weights = picture_weights(material)

    def loss_of(pictures: Tensor) -> tuple[Tensor, Tensor]:
        return vae_loss(model, pictures, weights)

    compiled = torch.compile(loss_of) if compile_model else loss_of

    def run(examples: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        pictures = (examples["pictures"].float() / 255).contiguous(memory_format=torch.channels_last)
        return compiled(pictures)

    replay = Replay(memory, device)
    drawn = max(1, batch // USES)

    def draw() -> None:
        replay.add({"pictures": to_bytes(material.pictures(drawn))})

    for _ in range(min(USES, memory // drawn)):
        draw()
    gradients = Gradients(list(model.parameters()))
    graphed = GraphedLoss(run, replay.blank(batch), gradients)
    parts, optimizers = {"vae": (model, averaged)}, {"vae": optimizer}
    loop = TrainingRun(
        "vae", state, parts, optimizers, gradients, step=step, minutes=minutes, peak=peak, final=final
    )
    for _ in loop.steps():
        draw()
        replay.draw(graphed.inputs, material.generator)
        loop.learn(*graphed())
