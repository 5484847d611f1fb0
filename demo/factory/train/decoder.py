"""The decoder alone, on latents that the trained networks predict: the last stage. Two cores can carry it.

    python -m demo.factory.train decoder --state DIR --minutes 50

Latents stay as they are, so nothing else has to be trained again. The decoder learns to turn predicted
latents into the drawn pictures of the same moments, in both sizes, and keeps decoding true latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from demo.factory.train.both_sizes import BothSizes, moments_of, pictures_of
from demo.factory.train.checkpoint import Averaged, load_training
from demo.factory.train.data import PRESSED, Material
from demo.factory.train.denoiser import CARRIED, ConditionEncoder, pick_rate, predicted_latents
from demo.factory.train.listen import ADAPTER, load_ears
from demo.factory.train.models import build_networks, channels_last
from demo.factory.train.replay import Replay
from demo.factory.train.step import Gradients, GraphedLoss, TrainingRun, make_optimizer
from demo.factory.train.vae import LATENT_NOISE, AutoencoderLite, to_bytes

USES = 5  # times that a frame is learned from, on average: making one costs as much as learning from it twice
MEMORY = 4096  # frames
CLIPS = {"cpu": 2, "cuda": 16}  # made at a time, by the kind of device
PREDICTED = 2 / 3  # share of a batch that is decoded from predicted latents, the rest from true ones
DECAY = 0.99  # of the running average: this stage has some thousand steps


class Predictor:
    """Frames with their predicted and true latents, from the frozen networks' running averages."""

    def __init__(self, material: Material, state: Path, whisper: Path, vae: AutoencoderLite) -> None:
        self._material = material
        self._conditions = ConditionEncoder(vae, load_ears(whisper, state / ADAPTER), material.device)
        networks = channels_last(build_networks(), material.device)
        networks.load_state_dict(load_file(state / "networks.average.safetensors"))
        self._networks = networks.eval().requires_grad_(False)
        self._turn = 0

    @torch.no_grad()
    def frames(self) -> dict[str, Tensor]:
        """The frames of `CLIPS` clips.

        Returns:
            `predicted` and `true` latents (n, C, h, w), `pictures`, uint8 (n, 3, FINE_SIZE, FINE_SIZE), and
            the values of their `Moments`.
        """
        device = self._material.device
        count = CLIPS[device.type]
        fps, frames = pick_rate(self._turn)
        self._turn += 1
        clips = self._material.clips(count, fps=fps, frames=frames)
        assert clips.fine is not None, "the material is drawn for both sizes"
        kept = self._conditions.encode(clips)
        batch = self._conditions.batch(
            kept, self._conditions.positions(fps, range(frames)), self._material.poses.maps
        )
        predicted = predicted_latents(self._networks, batch, torch.rand(count, device=device) < CARRIED)
        moments = self._material.conditions(clips.track, clips.frame, clips.mouth[:, 1:, PRESSED], clips.twin)
        return {
            "predicted": predicted.transpose(1, 2).flatten(0, 1).bfloat16(),
            "true": kept["clean"].transpose(1, 2).flatten(0, 1),
            "pictures": to_bytes(clips.fine.flatten(0, 1)),
            **{name: values.flatten(0, 1) for name, values in moments._asdict().items()},
        }


def train_decoder(
    material: Material,
    state: Path,
    whisper: Path,
    *,
    minutes: float,
    batch: int,
    peak: float,
    final: float,
    memory: int = MEMORY,
) -> None:
    """Train the VAE's decoder, both heads, for `minutes`. The time for the first frames does not count.

    The material draws for both sizes (`Material(fine=True)`).
    """
    vae = channels_last(AutoencoderLite(), material.device)
    averaged = Averaged(vae, DECAY)
    optimizer = make_optimizer(list(vae.parameters()), weight_decay=1e-4)
    step = load_training(state, "vae", vae, averaged, optimizer)
    vae.load_state_dict(averaged.module.state_dict())
    averaged.updates = 0
    predictor = Predictor(material, state, whisper, vae)
    vae.decoder.requires_grad_(True)
    gradients = Gradients(list(vae.decoder.parameters()))
    sizes = BothSizes(material)
    from_prediction = round(PREDICTED * batch)

    def loss_of(kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        true = kept["true"][from_prediction:].float()
        true = true + LATENT_NOISE * torch.randn_like(true)
        latents = torch.cat([kept["predicted"][:from_prediction].float(), true])
        pictures = pictures_of(kept["pictures"])
        with torch.autocast(material.device.type, torch.bfloat16):
            plain, fine = vae.decode_both(latents.contiguous(memory_format=torch.channels_last))
        error = (fine[:from_prediction].float() - pictures[:from_prediction]).square().mean()
        return sizes.loss(plain, fine, pictures, moments_of(kept)), error

    replay = Replay(memory, material.device)
    made = _fill(replay, predictor, 4 * batch)
    graphed = GraphedLoss(loss_of, replay.blank(batch), gradients)
    parts, optimizers = {"vae": (vae, averaged)}, {"vae": optimizer}
    loop = TrainingRun(
        "decoder", state, parts, optimizers, gradients, step=step, minutes=minutes, peak=peak, final=final
    )
    used = 0
    for _ in loop.steps():
        while made * USES < used:
            made += _remember(replay, predictor)
        used += batch
        replay.draw(graphed.inputs, material.generator)
        loop.learn(*graphed())


def _fill(replay: Replay, predictor: Predictor, count: int) -> int:
    """Add at least `count` frames to the memory. Returns their number."""
    made = 0
    while made < count:
        made += _remember(replay, predictor)
    return made


def _remember(replay: Replay, predictor: Predictor) -> int:
    """Add frames to the memory. Returns their number."""
    frames = predictor.frames()
    replay.add(frames)
    return len(frames["pictures"])
