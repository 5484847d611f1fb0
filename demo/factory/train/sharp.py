"""Sharper pictures of 512²: the VAE for both sizes, then the denoiser and the decoder on its latents.

    python -m demo.factory.train sharp --state DIR --minutes 8

It goes on from a state of trained weights. First encoder and decoder learn together from pictures that are
drawn at 512², so that the latents hold what the finer head needs. The encoder stays near its old latents, so
that the denoiser has little to learn anew. Then denoiser and decoder learn together, as in `denoiser`, from
clips that are drawn at 512². All of the time the decoder rounds its inputs (`demo.factory.train.rounding`).
Where the material draws twins, both parts learn that other hands leave the rest of a picture as it is.

Nothing is compiled: that takes two minutes and more.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from demo.factory.train.both_sizes import GOALS, BothSizes, moments_of, pictures_of
from demo.factory.train.checkpoint import Averaged, load_training
from demo.factory.train.compare import shared_normal
from demo.factory.train.data import Material, halved
from demo.factory.train.denoiser import Trainer, make_courses, run_courses
from demo.factory.train.export import export_model
from demo.factory.train.models import channels_last
from demo.factory.train.replay import Replay
from demo.factory.train.rounding import train_for_eight_bits
from demo.factory.train.step import Gradients, GraphedLoss, TrainingRun, make_optimizer, share_weights
from demo.factory.train.vae import LATENT_NOISE, USES, AutoencoderLite, latent_spread, to_bytes

VAE_BATCH = 64
VAE_MEMORY = 8192  # pictures kept, 0.8 MB each
NEAR = 0.1  # weight of the latents' squared distance from the old ones
SPREAD = 0.01  # weight of `latent_spread`
DECAY = 0.99  # of the running averages: each part has some thousand steps
WARM_UP = 100  # steps


class JointLoss:
    """The loss of encoder and decoder together.

    Args:
        vae: trained further. Its present encoder says where latents were.
        sizes: compares pictures.
        together: neighbours with the same noise.
    """

    def __init__(self, vae: AutoencoderLite, sizes: BothSizes, together: int = 1) -> None:
        self._vae, self._sizes, self._together = vae, sizes, together
        self._old: nn.Module = copy.deepcopy(vae.encoder).requires_grad_(False).eval()

    def __call__(self, kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Loss and squared error of uint8 `pictures` (N, 3, FINE_SIZE, FINE_SIZE) with their moments."""
        pictures = pictures_of(kept["pictures"])
        small = halved(pictures)
        with torch.autocast(pictures.device.type, torch.bfloat16):
            latents = self._vae.encode(small)
            before = self._old(small * 2 - 1)
            noise = LATENT_NOISE * shared_normal(latents, self._together)
            plain, fine = self._vae.decode_both(latents + noise)
        moved = (latents.float() - before.float()).square().mean()
        loss = self._sizes.loss(plain, fine, pictures, moments_of(kept))
        error = (fine.float() - pictures).square().mean()
        return loss + NEAR * moved + SPREAD * latent_spread(latents), error


def train_sharp(
    material: Material,
    state: Path,
    whisper: Path,
    *,
    minutes: float,
    batch: int,
    peak: float,
    final: float,
    memory: int,
    vae_share: float = 0.4,
    export: Path | None = None,
) -> None:
    """Train both parts for `minutes` together, with all that they need to begin.

    Args:
        material: draws at `FINE_SIZE`.
        state: folder of the training state.
        whisper: folder of Whisper's weights.
        minutes: time of both parts.
        batch: clips of a step of the second part.
        peak: highest learning rate.
        final: last learning rate.
        memory: clips kept by the second part, 10 MB each.
        vae_share: the first part's share of the time. 0 leaves it out, for a VAE that has had it. 1 leaves
            out the second part.
        export: folder for the averaged weights in half precision, written at each save.

    Raises:
        ValueError: the material draws twins, and a batch cannot be pairs at each frame rate.
    """
    if material.twins and batch % 4:
        raise ValueError(f"--batch {batch}: choose a multiple of 4; clips are pairs, also in half a batch")
    until = time.monotonic() + 60 * minutes
    after_save = None if export is None else (lambda: export_model(state, export))
    if vae_share:
        _train_vae(material, state, until - 60 * minutes * (1 - vae_share), peak, final, after_save)
    if vae_share >= 1:
        return
    if dist.is_initialized():
        dist.barrier()  # the leader writes what all read now
    trainer = Trainer(material, state, whisper, compile_model=False, decay=DECAY, goals=GOALS)
    train_for_eight_bits(trainer.vae.decoder)
    courses = make_courses(trainer, memory, batch, compiled=False)
    loop = TrainingRun(
        "sharp denoiser",
        state,
        trainer.parts,
        trainer.optimizers,
        trainer.gradients,
        step=trainer.first_step,
        minutes=_left(until),
        peak=peak,
        final=final,
        warm_up=WARM_UP,
        after_save=after_save,
    )
    run_courses(trainer, courses, loop)


def _left(until: float) -> float:
    """Minutes from now, at least one second."""
    return max(1.0, until - time.monotonic()) / 60


def _train_vae(
    material: Material,
    state: Path,
    until: float,
    peak: float,
    final: float,
    after_save: Callable[[], None] | None,
) -> None:
    """The first part, until `until` on the monotonic clock."""
    device = material.device
    vae = channels_last(AutoencoderLite(), device)
    averaged = Averaged(vae, DECAY)
    load_training(state, "vae", vae, averaged)
    vae.load_state_dict(averaged.module.state_dict())
    averaged.updates = 0
    share_weights([vae, averaged.module])
    train_for_eight_bits(vae.decoder)
    loss = JointLoss(vae, BothSizes(material, goals=GOALS), material.together)
    batch = VAE_BATCH if device.type == "cuda" else 4
    replay = Replay(VAE_MEMORY if device.type == "cuda" else 64, device, together=material.together)

    def draw() -> None:
        pictures, moments = material.drawings(batch)
        replay.add({"pictures": to_bytes(pictures), **moments._asdict()})

    for _ in range(USES):
        draw()
    gradients = Gradients(list(vae.parameters()))
    graphed = GraphedLoss(loss, replay.blank(batch), gradients, alone=True)
    optimizer = make_optimizer(list(vae.parameters()), weight_decay=1e-4)
    loop = TrainingRun(
        "sharp VAE",
        state,
        {"vae": (vae, averaged)},
        {"vae": optimizer},
        gradients,
        step=0,
        minutes=_left(until),
        peak=peak,
        final=final,
        warm_up=WARM_UP,
        after_save=after_save,
    )
    for step in loop.steps():
        if step % USES == 0:
            draw()
        replay.draw(graphed.inputs, material.generator)
        loop.learn(*graphed())
