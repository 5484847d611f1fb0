"""Training without a GPU: clips are drawn and encoded once, then only the denoiser is trained on them.

    python -m demo.factory.train cache --state DIR --minutes 10     # several times, with seeds of their own
    python -m demo.factory.train tune --state DIR --minutes 60

Reference UNet, pose encoder and VAE stay as they are, so their outputs are computed once per picture, pose
frame and avatar. A forward and a backward pass of the denoiser remain. They take about a second a clip on one
core. The loss looks mainly at the face, where speech and blinks happen.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from demo.factory.train.checkpoint import Averaged, load_training, save_training
from demo.factory.train.config import CLIP_FRAMES, FPS
from demo.factory.train.data import BUNDLED, Material, Poses
from demo.factory.train.denoiser import (
    CARRIED,
    LAST_TIMESTEP,
    ConditionEncoder,
    TrainingBatch,
    starting_latents,
)
from demo.factory.train.listen import ADAPTER, load_ears
from demo.factory.train.models import Networks, build_networks, channels_last
from demo.factory.train.step import set_rate, warm_cosine
from demo.factory.train.vae import AutoencoderLite

logger = logging.getLogger(__name__)

OTHERS = 42
SOME_FRAMES = 4
FACE_ROWS, FACE_COLUMNS, FACE_WEIGHT = slice(5, 9), slice(5, 11), 5.0  # of the 16×16 latent
MOUTH_ROWS, MOUTH_COLUMNS, MOUTH_WEIGHT = slice(7, 9), slice(6, 10), 20.0


def cached_identities(material: Material) -> Tensor:
    """Identities of the cached clips. Six of ten are bundled avatars. The rest keeps the others known."""
    others = material.identities[material.identities >= BUNDLED][:OTHERS]
    repeat = round(1.5 * OTHERS / BUNDLED)
    return torch.cat([torch.arange(BUNDLED, device=others.device).repeat(repeat), others])


def write_cache(figure: Path, speech: Path, whisper: Path, state: Path, *, minutes: float, seed: int) -> None:
    """Append shards of sixteen encoded clips to `DIR/cache`."""
    device = torch.device("cpu")
    material = Material(figure, speech, device, seed=seed, poses=Poses.bundled(device))
    material.identities = cached_identities(material)
    vae = AutoencoderLite()
    vae.load_state_dict(load_file(state / "vae.average.safetensors"))
    conditions = ConditionEncoder(vae, load_ears(whisper, state / ADAPTER), device)
    folder = state / "cache"
    folder.mkdir(exist_ok=True)
    began, number = time.monotonic(), 0
    while time.monotonic() - began < 60 * minutes:
        fps, frames = (12, CLIP_FRAMES // 2) if number % 8 == 7 else (FPS, CLIP_FRAMES)
        # A few neighbouring frames of more clips teach more than all frames of fewer; they keep their
        # positions.
        first = int(material.integers(frames - SOME_FRAMES + 1, 1))
        only = range(first, first + SOME_FRAMES)
        clips = material.clips(16, fps=fps, frames=frames, only=only)
        kept = conditions.encode(clips)
        tokens = kept["heard"][:, conditions.positions(fps, only)].flatten(2, 3)
        tensors = {
            "clean": kept["clean"].half(),
            "carried": kept["carried"].half(),
            "tokens": tokens.half(),
            "identity": clips.identity,
            "track": clips.track,
            "frame": clips.frame,
            "order": torch.tensor(only),
        }
        path = folder / f"{seed:04d}-{number:05d}.safetensors"
        save_file({k: v.contiguous() for k, v in tensors.items()}, path.with_suffix(".tmp"))
        path.with_suffix(".tmp").rename(path)
        number += 1
    logger.info("cache: %d shards written with seed %d", number, seed)


class FrozenParts:
    """Reference features by identity and pose features by track and frame, computed once."""

    def __init__(self, networks: Networks, figure: Path, vae: AutoencoderLite) -> None:
        device = torch.device("cpu")
        poses = Poses.bundled(device)
        material = Material(figure, None, device, seed=0, poses=poses)
        self.networks = networks
        with torch.no_grad():
            self.pose = torch.stack(
                [
                    torch.cat(
                        [
                            networks.pose_encoder(m[None].transpose(1, 2).float() / 255)[0]
                            for m in maps.split(24)
                        ],
                        1,
                    )
                    for maps in poses.maps
                ]
            )  # (tracks, c0, LOOP, h, w)
            self.identities = cached_identities(material).unique()
            banks = []
            for part in self.identities.split(8):
                latents = vae.encode(material.renderer.reference(part))
                banks.append(networks.reference(latents))
            self.bank = {name: torch.cat([b[name] for b in banks]) for name in banks[0]}

    def pose_features(self, track: Tensor, frame: Tensor) -> Tensor:
        """Pose features (B, c0, F, h, w) of tracks (B,) and frames (B, F)."""
        return torch.stack([self.pose[t][:, f] for t, f in zip(track.tolist(), frame, strict=True)])

    def reference_bank(self, identity: Tensor) -> dict[str, Tensor]:
        """Reference features of identities (B,), by layer."""
        row = torch.searchsorted(self.identities, identity)
        return {name: features[row] for name, features in self.bank.items()}


def audio_parameters(networks: Networks) -> list[nn.Parameter]:
    """Parameters of the denoiser's audio cross-attentions and of the norms before them."""
    blocks = networks.denoiser.transformer_blocks.values()
    return [p for block in blocks for part in (block.attn2, block.norm2) for p in part.parameters()]


def place_weights() -> Tensor:
    """Weights (16, 16) of a latent's places, mean 1, for the loss of `tune`."""
    weights = torch.ones(16, 16)
    weights[FACE_ROWS, FACE_COLUMNS] = FACE_WEIGHT
    weights[MOUTH_ROWS, MOUTH_COLUMNS] = MOUTH_WEIGHT
    return weights / weights.mean()


def squared_error(
    networks: Networks, frozen: FrozenParts, shards: list[Path], batch: int, generator: torch.Generator
) -> Tensor:
    """Squared error (B, C, F, h, w) of the denoiser's clean latents on some clips of one shard.

    Args:
        networks: networks that learn.
        frozen: features of the parts that do not.
        shards: files of the cache.
        batch: number of clips.
        generator: source of the choice of shard and clips.
    """
    shard = load_file(shards[int(torch.randint(len(shards), (), generator=generator))])
    order = shard.pop("order")
    rows = torch.randperm(len(shard["identity"]), generator=generator)[:batch]
    part = {k: v[rows] if v.dtype == torch.int64 else v[rows].float() for k, v in shard.items()}
    inputs = TrainingBatch(part["clean"], part["carried"], part["carried"], part["tokens"], part["tokens"])
    start = starting_latents(inputs, (torch.rand(len(rows)) < CARRIED) & (order[0] == 0))
    with torch.autocast("cpu", torch.bfloat16):
        reference = networks.denoiser.project_reference(frozen.reference_bank(part["identity"]))
        pose = frozen.pose_features(part["track"], part["frame"])
        timestep = torch.full((len(rows),), LAST_TIMESTEP)
        velocity: Tensor = networks.denoiser(start, timestep, part["tokens"], pose, reference, order=order)
    return (-velocity.float() - part["clean"]).square()


def _trained_parameters(networks: Networks, audio_only: bool) -> list[nn.Parameter]:
    """The parameters that `tune` trains. No others keep gradients."""
    networks.requires_grad_(False)
    parameters = audio_parameters(networks) if audio_only else list(networks.denoiser.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


def _descend(loss: Tensor, parameters: list[nn.Parameter], optimizer: torch.optim.Optimizer) -> None:
    """Take one step of the optimiser, with gradients clipped to a norm of 1."""
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def _frozen_vae(state: Path) -> AutoencoderLite:
    """The trained VAE's running average."""
    vae = AutoencoderLite().eval()
    vae.load_state_dict(load_file(state / "vae.average.safetensors"))
    return vae


def tune(
    figure: Path,
    state: Path,
    *,
    minutes: float,
    batch: int,
    peak: float,
    final: float,
    seed: int,
    audio_only: bool = False,
) -> None:
    """Train the denoiser on the cached clips. Shards that appear meanwhile join in.

    The learning rate falls from `peak` to `final`. `seed` sets the choice of clips.

    Args:
        figure: file of identities.
        state: folder of the training state, with the cache.
        minutes: time to train.
        batch: clips a step.
        audio_only: train the audio cross-attentions alone.
    """
    vae = _frozen_vae(state)
    networks = channels_last(build_networks(), torch.device("cpu"))
    averaged = Averaged(networks, decay=0.995)
    parameters = _trained_parameters(networks, audio_only)
    optimizer = torch.optim.AdamW(parameters, lr=peak, betas=(0.9, 0.99), weight_decay=1e-3)
    step = load_training(state, "networks", networks, averaged)
    averaged.updates = 0
    frozen, weights = FrozenParts(networks, figure, vae), place_weights()
    generator = torch.Generator().manual_seed(seed)
    began, first, saved = time.monotonic(), step, time.monotonic()
    running = None
    while (progress := (time.monotonic() - began) / (60 * minutes)) < 1:
        set_rate(optimizer, warm_cosine(step - first, progress, peak, final))
        shards = sorted((state / "cache").glob("*.safetensors"))
        error = squared_error(networks, frozen, shards, batch, generator)
        loss = (error * weights).mean()
        _descend(loss, parameters, optimizer)
        averaged.update(networks)
        step += 1
        mouth = float(error[..., MOUTH_ROWS, MOUTH_COLUMNS].detach().mean())
        running = mouth if running is None else 0.95 * running + 0.05 * mouth
        if step % 10 == 0:
            figures = step, float(loss.detach()), running, len(shards), time.monotonic() - began
            logger.info("tune step %d loss %.4f mouth %.4f shards %d %.0f s", *figures)
        if time.monotonic() - saved > 300:
            save_training(state, "networks", networks, averaged, optimizer, step)
            saved = time.monotonic()
    save_training(state, "networks", networks, averaged, optimizer, step)
