"""The denoiser with its reference UNet, motion modules and pose encoder, and the decoder beside it.

    python -m demo.factory.train denoiser --minutes 9 --state DIR

Given identity, pose and sound there is one right picture. So the conditional distribution is nearly a point,
and a single step from pure noise can be enough. Most samples therefore train timestep 999, where zero
terminal SNR makes the v-prediction exactly minus the clean latent. The rest keep longer schedules usable.

Latents are compared with latents. Some frames are also decoded and compared with the drawn pictures, first
with little weight and at the end with most of it, so that decoder and denoiser grow together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from audio_worker.whisper import SpeechEncoder
from demo.factory.train.both_sizes import MORE_PRESSED, BothSizes
from demo.factory.train.checkpoint import Averaged, load_training
from demo.factory.train.compare import compare_both_sizes, compare_one_size, pictures_loss, shared_normal
from demo.factory.train.config import CLIP_FRAMES, FPS, HISTORY_SAMPLES, INFERENCE
from demo.factory.train.data import PRESSED, ClipBatch, Material
from demo.factory.train.listen import ADAPTER, load_ears
from demo.factory.train.models import Networks, build_networks, channels_last
from demo.factory.train.replay import Replay
from demo.factory.train.step import Gradients, GraphedLoss, TrainingRun, make_optimizer, share_weights
from demo.factory.train.vae import AutoencoderLite, picture_weights, to_bytes
from gpu_worker.denoiser.sampler import NOISE_LIMIT, SchedulerConfig, alphas_cumprod, preserve_latent
from protocol.model.audio_tokens import audio_token_positions
from protocol.wire.clock import SAMPLE_RATE

LAST_TIMESTEP = 999
CARRIED = 0.35  # share of clips that begin from a carried latent
CARRIED_NOISE = 0.25  # up to this: the carried latent is a predicted one when serving, never quite the truth
LATE_SHARE = 0.85  # share of samples at the last timestep
USES = {False: 4, True: 12}  # times that a drawn clip is learned from, by whether it is drawn larger
MEMORY = 8192  # clips kept, 3 MB each, or 10 MB where they are drawn larger
DRAWN = {False: 64, True: 16}  # clips drawn at a time at most, by whether they are drawn larger
LATENT_SHARE, PICTURE_SHARE = (1.0, 0.3), (2.0, 6.0)  # weights of the two losses, at the start and the end
MOMENTS = ("track", "frame", "pressed", "twin")  # kept values that say what a clip's moments are
FACE_ROWS, FACE_COLUMNS, FACE_WEIGHT = slice(4, 9), slice(5, 11), 2.0  # of the 16×16 latent
MOUTH_ROWS, MOUTH_COLUMNS, MOUTH_WEIGHT = slice(7, 10), slice(6, 10), 6.0


@dataclass
class TrainingBatch:
    """The denoiser's inputs: latents (B, C, F, h, w) and conditions."""

    clean: Tensor
    carried: Tensor  # (B, C, h, w): the latent of the frame before the clip
    reference: Tensor  # (B, C, h, w)
    tokens: Tensor  # (B, F, T, 384)
    poses: Tensor  # (B, 3, F, H, W) 0..1


class ConditionEncoder:
    """Turns drawn clips into the denoiser's inputs with the frozen VAE encoder and `whisper`."""

    def __init__(
        self, vae: AutoencoderLite, whisper: SpeechEncoder, device: torch.device, margin: int = 2
    ) -> None:
        self.vae = vae.eval().requires_grad_(False)
        self.whisper = whisper.to(device).eval().requires_grad_(False)
        self.margin = margin
        self.device = device

    @torch.no_grad()
    def encode(self, clips: ClipBatch) -> dict[str, Tensor]:
        """Latents, features and places in the pose bank of drawn clips, batch first. These are kept."""
        count, frames = clips.pictures.shape[:2]
        with torch.autocast(self.device.type, torch.bfloat16):
            pictures = clips.pictures.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            latents = self.vae.encode(pictures).unflatten(0, (count, frames))
            reference = self.vae.encode(clips.reference.contiguous(memory_format=torch.channels_last))
            heard = self.whisper.features(clips.pcm)  # (B, 75, 5, 384)
        return {
            "clean": latents[:, 1:].transpose(1, 2).bfloat16(),
            "carried": latents[:, 0].bfloat16(),
            "reference": reference.bfloat16(),
            "heard": heard.bfloat16(),
            "track": clips.track,
            "frame": clips.frame,
        }

    def positions(self, fps: int, only: range) -> Tensor:
        """Feature positions (F, n) of the tokens of the clip's frames `only`."""
        positions = audio_token_positions(
            only.stop, fps, 75, margin=self.margin, offset=HISTORY_SAMPLES * 50 // SAMPLE_RATE
        )
        return torch.as_tensor(positions[only.start :], device=self.device)

    def batch(self, kept: Mapping[str, Tensor], positions: Tensor, maps: Tensor) -> TrainingBatch:
        """The denoiser's inputs.

        Args:
            kept: values of `encode`.
            positions: feature positions (F, n) of `positions`.
            maps: the pose bank, uint8 (tracks, LOOP, 3, H, W).
        """
        poses = maps[kept["track"][:, None], kept["frame"]]
        return TrainingBatch(
            clean=kept["clean"].float(),
            carried=kept["carried"].float(),
            reference=kept["reference"].float(),
            tokens=kept["heard"][:, positions].flatten(2, 3).float(),
            poses=poses.transpose(1, 2).float() / 255,
        )


def starting_latents(batch: TrainingBatch, carry: Tensor, *, together: int = 1) -> Tensor:
    """Clamped noise, whose first frame keeps the carried latent where `carry` (B,) is true.

    Each `together` neighbours have the same noise.
    """
    noise = shared_normal(batch.clean, together).clamp_(-NOISE_LIMIT, NOISE_LIMIT)
    amount = CARRIED_NOISE * torch.rand(len(carry) // together, 1, 1, 1, device=noise.device)
    amount = amount.repeat_interleave(together, 0)
    carried = batch.carried + amount * shared_normal(batch.carried, together)
    mixed = preserve_latent(noise[:, :, 0], carried.to(noise))
    noise[:, :, 0] = torch.where(carry[:, None, None, None], mixed, noise[:, :, 0])
    return noise


def predicted_latents(networks: Networks, batch: TrainingBatch, carry: Tensor) -> Tensor:
    """Clean latents (B, C, F, h, w) by one step from noise, as serving makes them.

    `carry` (B,) says which clips keep the carried latent, as in `starting_latents`.
    """
    start = starting_latents(batch, carry)
    timestep = torch.full((len(carry),), LAST_TIMESTEP, device=start.device)
    with torch.autocast(start.device.type, torch.bfloat16):
        # Zero terminal SNR: the v-prediction at the last timestep is minus the clean latent.
        velocity: Tensor = networks(start, timestep, batch.tokens, batch.poses, batch.reference)
        return -velocity


def latent_weights(device: torch.device) -> Tensor:
    """Weights (16, 16) of a latent's places, mean 1. Face and mouth count more: eyes go there first."""
    weights = torch.ones(16, 16, device=device)
    weights[FACE_ROWS, FACE_COLUMNS] = FACE_WEIGHT
    weights[MOUTH_ROWS, MOUTH_COLUMNS] = MOUTH_WEIGHT
    return weights / weights.mean()


def pressed_weights(pressed: Tensor) -> Tensor:
    """Further weights (B, 1, F, 16, 16) of the mouth's places where lips (B, F) are pressed together."""
    weights = torch.zeros(16, 16, device=pressed.device)
    weights[MOUTH_ROWS, MOUTH_COLUMNS] = MORE_PRESSED
    return pressed[:, None, :, None, None] * weights


def signal_shares(device: torch.device) -> Tensor:
    """The signal's share of the variance at each training timestep, float32 (1000,), as the sampler has."""
    scheduler = SchedulerConfig.from_dict(INFERENCE["noise_scheduler_kwargs"])
    return torch.from_numpy(alphas_cumprod(scheduler)).float().to(device)


def noised(
    batch: TrainingBatch, alphas: Tensor, *, together: int = 1
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Noisy latents at random timesteps, their velocity, the timesteps (B,) and the signal's share.

    Each `together` neighbours have the same timestep and noise.
    """
    count = len(batch.clean) // together
    device = batch.clean.device
    anywhere = torch.randint(0, LAST_TIMESTEP, (count,), device=device)
    timestep = torch.where(torch.rand(count, device=device) < LATE_SHARE, LAST_TIMESTEP, anywhere)
    carry = (torch.rand(count, device=device) < CARRIED) & (timestep == LAST_TIMESTEP)
    timestep, carry = (values.repeat_interleave(together) for values in (timestep, carry))
    noise = starting_latents(batch, carry, together=together)
    alpha = alphas[timestep].view(-1, 1, 1, 1, 1)
    noisy = alpha.sqrt() * batch.clean + (1 - alpha).sqrt() * noise
    return noisy, alpha.sqrt() * noise - (1 - alpha).sqrt() * batch.clean, timestep, alpha


def pick_rate(step: int) -> tuple[int, int]:
    """Rate and frames of a step. Every eighth batch has one of the slower rates that a weak machine gets."""
    if step % 16 == 7:
        return 12, CLIP_FRAMES // 2
    if step % 16 == 15:
        return 8, CLIP_FRAMES // 3
    return FPS, CLIP_FRAMES


class RateCourse:
    """A memory of clips and a recorded loss, for the steps at one frame rate."""

    def __init__(
        self,
        trainer: Trainer,
        fps: int,
        frames: int,
        memory: int,
        batch: int,
        gradients: Gradients,
        compiled: bool,
    ) -> None:
        self._trainer, self._fps, self._frames = trainer, fps, frames
        self._replay = Replay(memory, trainer.material.device, together=trainer.material.together)
        self._batch, self._made = batch, 0
        self._uses = USES[trainer.material.fine]
        while self._made < min(8 * batch, memory):
            self._remember()
        self._used = self._uses * self._made
        loss = trainer.loss(fps, frames, compiled=compiled)
        self._graphed = GraphedLoss(loss, self._replay.blank(batch), gradients)

    def _remember(self) -> None:
        material = self._trainer.material
        count = min(self._batch, DRAWN[material.fine])
        clips = material.clips(count, fps=self._fps, frames=self._frames)
        kept = self._trainer.conditions.encode(clips)
        kept["pressed"] = clips.mouth[:, 1:, PRESSED]
        kept["twin"] = clips.twin
        kept["pictures"] = to_bytes(clips.pictures[:, 1:] if clips.fine is None else clips.fine)
        self._replay.add(kept)
        self._made += count

    def step(self) -> tuple[Tensor, Tensor]:
        """Loss and squared error of a step. The gradients are in place afterwards."""
        while self._made * self._uses <= self._used:
            self._remember()
        self._used += self._batch
        self._replay.draw(self._graphed.inputs, self._trainer.material.generator)
        return self._graphed()


class Trainer:
    """The networks with their averages, optimisers and loss.

    Args:
        material: clips. Where it draws at `FINE_SIZE`, the decoder's heads are both trained.
        state: folder of the training state.
        whisper: folder of Whisper's weights.
        compile_model: compile networks and decoder, which takes two minutes and more.
        decay: begin running averages anew, with this decay. None: go on with those of the state.
        goals: weight of the goals of the larger pictures, see `BothSizes`.

    Attributes:
        vae: its decoder learns.
    """

    def __init__(
        self,
        material: Material,
        state: Path,
        whisper: Path,
        *,
        compile_model: bool,
        decay: float | None = None,
        goals: float = 0.0,
    ) -> None:
        self.material = material
        device = material.device
        vae = channels_last(AutoencoderLite(), device)
        vae_average = Averaged(vae)
        load_training(state, "vae", vae, vae_average)
        vae.load_state_dict(vae_average.module.state_dict())
        self.conditions = ConditionEncoder(vae, load_ears(whisper, state / ADAPTER), device)
        vae.decoder.requires_grad_(True)
        self.networks = channels_last(build_networks(), device)
        averaged = Averaged(self.networks)
        self.parts: dict[str, tuple[nn.Module, Averaged]] = {
            "networks": (self.networks, averaged),
            "vae": (vae, vae_average),
        }
        self.optimizers = {
            "networks": make_optimizer(list(self.networks.parameters()), weight_decay=1e-3),
            "vae": make_optimizer(list(vae.parameters()), weight_decay=1e-4),
        }
        self.first_step = load_training(
            state, "networks", self.networks, averaged, self.optimizers["networks"]
        )
        if decay is not None:
            for _, average in self.parts.values():
                average.decay, average.updates = decay, 0
        share_weights([m for module, average in self.parts.values() for m in (module, average.module)])
        trained = [p for module, _ in self.parts.values() for p in module.parameters() if p.requires_grad]
        self.gradients = Gradients(trained)
        self._compiled = torch.compile(self.networks) if compile_model else self.networks
        self._decode = torch.compile(vae.decode) if compile_model else vae.decode
        self.vae = vae
        self._alphas = signal_shares(device)
        self._latent_weights = latent_weights(device)
        self._sizes = BothSizes(material, goals=goals) if material.fine else None
        self._picture_weights = picture_weights(material)
        self._shares = torch.zeros(2, device=device)
        self.aim(0.0)

    def aim(self, progress: float) -> None:
        """Move the weight from latents to pictures. `progress` runs from 0 to 1."""
        shares = [a + (b - a) * progress for a, b in (LATENT_SHARE, PICTURE_SHARE)]
        self._shares.copy_(torch.tensor(shares))

    def loss(
        self, fps: int, frames: int, *, compiled: bool
    ) -> Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor]]:
        """The loss of kept clips of one rate."""
        positions = self.conditions.positions(fps, range(frames))
        network = self._compiled if compiled else self.networks
        if self._sizes is not None:
            compare = compare_both_sizes(self.vae, self._sizes)
        else:
            compare = compare_one_size(self._decode if compiled else self.vae.decode, self._picture_weights)

        def of(kept: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
            batch = self.conditions.batch(kept, positions, self.material.poses.maps)
            noisy, velocity, timestep, alpha = noised(batch, self._alphas, together=self.material.together)
            with torch.autocast(self.material.device.type, torch.bfloat16):
                predicted = network(noisy, timestep, batch.tokens, batch.poses, batch.reference).float()
                difference = predicted - velocity
                of_latents = difference.square() + 0.2 * difference.abs()
                of_latents = of_latents * (self._latent_weights + pressed_weights(kept["pressed"]))
                clean = alpha.sqrt() * noisy - (1 - alpha).sqrt() * predicted
                moments = self.material.conditions(*(kept[name] for name in MOMENTS))
                of_pictures, error = pictures_loss(
                    compare, batch.clean, clean, kept["pictures"], moments, together=self.material.together
                )
            return self._shares[0] * of_latents.mean() + self._shares[1] * of_pictures, error

        return of


def train_denoiser(
    material: Material,
    state: Path,
    whisper: Path,
    *,
    minutes: float,
    batch: int,
    peak: float,
    final: float,
    compile_model: bool,
    memory: int = MEMORY,
) -> None:
    """Train for `minutes`. Building, drawing and compiling at the start do not count."""
    trainer = Trainer(material, state, whisper, compile_model=compile_model)
    courses = make_courses(trainer, memory, batch, compiled=compile_model)
    loop = TrainingRun(
        "denoiser",
        state,
        trainer.parts,
        trainer.optimizers,
        trainer.gradients,
        step=trainer.first_step,
        minutes=minutes,
        peak=peak,
        final=final,
    )
    run_courses(trainer, courses, loop)


def make_courses(trainer: Trainer, memory: int, batch: int, *, compiled: bool) -> dict[int, RateCourse]:
    """A course for each frame rate.

    Args:
        trainer: the networks.
        memory: clips kept at `FPS`.
        batch: clips of a step at `FPS`.
        compiled: use the compiled networks at `FPS`. The slower rates are rare: compiling for their lengths
            too would cost more than it saves.
    """
    courses: dict[int, RateCourse] = {}
    for turn, share in ((0, 1), (7, 8), (15, 8)):
        fps, frames = pick_rate(turn)
        size = max(1, batch // min(share, 2))
        courses[fps] = RateCourse(
            trainer, fps, frames, memory // share, size, trainer.gradients, compiled and fps == FPS
        )
    return courses


def run_courses(trainer: Trainer, courses: Mapping[int, RateCourse], loop: TrainingRun) -> None:
    """Train until the loop's time is over."""
    for step in loop.steps():
        if step % 50 == 0:
            trainer.aim(loop.progress)
        loop.learn(*courses[pick_rate(step)[0]].step())
