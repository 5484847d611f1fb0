"""From conditions to latents, clip after clip.

A reference picture becomes keys and values, pose maps become features, and a loop of denoiser and sampler
turns noise into latents. The official pipeline (antgroup/echomimic_v2, `pipeline_echomimicv2_acc.py`) rotates
its windows by three frames at each step, even a single one. The clip path does the same where the model's
configuration says so.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_worker.denoiser.loading import Models
from gpu_worker.denoiser.model import ReferenceCache
from gpu_worker.denoiser.model.transformer import KeysValues
from gpu_worker.denoiser.sampler import NOISE_LIMIT, make_steps, preserve_in_clip
from gpu_worker.denoiser.spare import SpareWeights, weights_of

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AvatarCache:
    """An avatar made ready.

    Attributes:
        latents: scaled latents (1, C, h, w) of its picture, float32.
        reference: the denoiser's keys and values of it.
    """

    latents: Tensor
    reference: ReferenceCache


@dataclass(frozen=True)
class AudioCache:
    """Audio keys and values of a clip.

    Attributes:
        conditional: of the clip's tokens, by block.
        unconditional: of silence, by block, for the unconditional half of guidance, or None without guidance.
    """

    conditional: tuple[KeysValues, ...]
    unconditional: tuple[KeysValues, ...] | None


class ClipDenoiser:
    """Makes clips of latents with one model.

    With `compile_unet` on CUDA, all calls must come from one thread, since CUDA graphs belong to it.

    Args:
        models: from `load_models`.
        steps: sampling steps, 1 or more, or None for the configuration's.
        guidance_scale: 1.0 runs no unconditional half. None takes the configuration's.
        compile_unet: whether to compile the denoiser. The first clip of each shape then takes long.

    Raises:
        SchedulerError: steps is out of range.
    """

    def __init__(
        self,
        models: Models,
        *,
        steps: int | None = None,
        guidance_scale: float | None = None,
        compile_unet: bool = False,
    ) -> None:
        self.models = models
        #: The networks that only a new avatar needs.
        self.spare = SpareWeights(weights_of(models.reference, models.vae_encoder), models.device)
        #: Weights of the denoiser that another way of sampling does not read, where one serves.
        self.unread = SpareWeights((), models.device)
        self.guidance_scale = models.config.cfg if guidance_scale is None else guidance_scale
        self.steps = make_steps(models.scheduler, models.config.steps if steps is None else steps)
        self.window_shift = models.config.window_shift
        self._timesteps = [torch.tensor([step.timestep], device=models.device) for step in self.steps]
        self._orders: dict[int, list[Tensor | None]] = {}
        self._forward: Any = models.denoiser
        self._graphs = compile_unet and models.device.type == "cuda"
        if compile_unet:
            mode = "reduce-overhead" if self._graphs else "default"
            self._forward = torch.compile(models.denoiser, mode=mode, dynamic=False)

    @property
    def latent_channels(self) -> int:
        """Channels C of the latents."""
        return self.models.denoiser.config.in_channels

    @property
    def max_frames(self) -> int | None:
        """Frames of the longest clip, or None without motion modules."""
        motion = self.models.denoiser.config.motion
        return None if motion is None else motion.max_frames

    @property
    def parameter_count(self) -> int:
        """Parameters of the denoiser."""
        return sum(p.numel() for p in self.models.denoiser.parameters())

    @property
    def size_multiple(self) -> int:
        """The pictures' sides are multiples of it."""
        models = self.models
        multiple: int = models.vae_encoder.factor * 2 ** (models.denoiser.config.levels - 1)
        return multiple

    @torch.inference_mode()
    def prepare_reference(self, picture: NDArray[np.uint8]) -> AvatarCache:
        """Latents, keys and values of an avatar's picture (H, W, 3), uint8 RGB.

        Raises:
            ValueError: the picture has another shape, or the VAE's factor does not divide its sides.
        """
        begin = time.perf_counter()
        with self.spare.on_device(), self.unread.on_device():
            latents = self.encode_picture(picture)
            bank = self.models.reference(latents.to(self.models.dtype))
            reference = self.models.denoiser.project_reference(bank)
        logger.info(
            "reference cache: keys and values of %d blocks, %.1f MB, projected once in %.2f s",
            len(reference.layers),
            reference.nbytes / 1e6,
            time.perf_counter() - begin,
        )
        return AvatarCache(latents, reference)

    @torch.inference_mode()
    def blank_reference(self, h: int, w: int) -> ReferenceCache:
        """Keys and values of latents (h, w) that are zero, for timing and for their shapes."""
        latents = torch.zeros(
            1, self.latent_channels, h, w, dtype=self.models.dtype, device=self.models.device
        )
        return self.models.denoiser.project_reference(self.models.reference(latents))

    @torch.inference_mode()
    def encode_picture(self, picture: NDArray[np.uint8]) -> Tensor:
        """Scaled latents (1, C, h, w), float32, of a picture (H, W, 3), uint8 RGB.

        Raises:
            ValueError: as for `prepare_reference`.
        """
        vae = self.models.vae_encoder
        if picture.ndim != 3 or picture.shape[2] != 3 or any(side % vae.factor for side in picture.shape[:2]):
            raise ValueError(
                f"picture of shape {picture.shape}: needs (H, W, 3), sides divisible by {vae.factor}"
            )
        pixels = torch.from_numpy(np.ascontiguousarray(picture)).to(self.models.device)
        with self.spare.on_device():
            latents: Tensor = vae(pixels.permute(2, 0, 1)[None].float() / 127.5 - 1)
        return latents

    @torch.inference_mode()
    def encode_pose(self, maps: Tensor) -> Tensor:
        """Pose maps (n, 3, H, W) in 0..1 → features (n, c0, h, w). Each map's depend on it alone."""
        maps = maps.to(self.models.device, self.models.dtype)
        features: Tensor = self.models.pose_encoder(maps.transpose(0, 1)[None])[0]
        return features.transpose(0, 1)

    @torch.inference_mode()
    def project_audio(self, tokens: Tensor) -> AudioCache:
        """Keys and values of a clip's audio tokens (F, T, 384), the same at all its steps."""
        tokens = tokens.to(self.models.device, self.models.dtype)[None]
        project = self.models.denoiser.project_audio
        with self.unread.on_device():
            silent = project(torch.zeros_like(tokens)) if self.guidance_scale > 1 else None
            return AudioCache(project(tokens), silent)

    @torch.inference_mode()
    def denoise(
        self,
        tokens: Tensor | AudioCache,
        pose_features: Tensor,
        reference: ReferenceCache,
        init_latent: Tensor | None,
        generator: torch.Generator,
    ) -> Tensor:
        """One clip: scaled latents (F, C, h, w), float32, on the device.

        Args:
            tokens: audio tokens (F, T, 384), or their keys and values from `project_audio`.
            pose_features: (F, c0, h, w), from `encode_pose`.
            reference: from `prepare_reference`.
            init_latent: the last latent (C, h, w) of the clip before, for latent preservation, or None.
            generator: of the noise, on the CPU: torch's, as the official pipeline draws it.
        """
        audio = tokens if isinstance(tokens, AudioCache) else self.project_audio(tokens)
        frames, _, height, width = pose_features.shape
        noise = torch.randn((frames, self.latent_channels, height, width), generator=generator)
        noise = noise.clamp_(-NOISE_LIMIT, NOISE_LIMIT).to(self.models.device)
        latents = noise if init_latent is None else preserve_in_clip(noise, init_latent.to(noise))
        return self.sample(latents, audio, pose_features, reference)

    @torch.inference_mode()
    def sample(
        self,
        latents: Tensor,
        audio: AudioCache,
        pose_features: Tensor,
        reference: ReferenceCache,
        start: int = 0,
    ) -> Tensor:
        """The sampling loop of one clip.

        Args:
            latents: starting latents (F, C, h, w), float32.
            audio: from `project_audio`.
            pose_features: (F, c0, h, w), from `encode_pose`.
            reference: from `prepare_reference`.
            start: number of the first step.

        Returns:
            Scaled latents (F, C, h, w), float32.
        """
        latents = latents.transpose(0, 1)[None]
        pose = pose_features.transpose(0, 1)[None]
        orders = self._order(latents.shape[2])
        with self.unread.on_device():
            for index in range(start, len(self.steps)):
                prediction = self.predict(latents, index, audio, pose, reference, orders[index])
                latents = self.steps[index](latents, prediction.float())
        return latents[0].transpose(0, 1).contiguous()

    def predict(
        self,
        latents: Tensor,
        index: int,
        audio: AudioCache,
        pose: Tensor,
        reference: ReferenceCache,
        order: Tensor | None,
    ) -> Tensor:
        """The guided prediction of one step, (1, C, F, h, w).

        Args:
            latents: (1, C, F, h, w).
            index: number of the step.
            audio: from `project_audio`.
            pose: pose features (1, c0, F, h, w).
            reference: from `prepare_reference`.
            order: positions (F,) of the frames in the motion modules, or None for 0, 1, …
        """
        if self._graphs:
            torch.compiler.cudagraph_mark_step_begin()
        x, timestep = latents.to(self.models.dtype), self._timesteps[index]
        conditional: Tensor = self._forward(x, timestep, audio.conditional, pose, reference, order)
        if audio.unconditional is None:
            return conditional
        if self._graphs:
            conditional = conditional.clone()  # the next replay writes over it
        # The official unconditional half has no reference, silent audio and no pose.
        unconditional: Tensor = self._forward(x, timestep, audio.unconditional, None, None, order)
        return unconditional + self.guidance_scale * (conditional - unconditional)

    def _order(self, frames: int) -> list[Tensor | None]:
        """Positions of a clip's frames at each step.

        The official pipeline rotates the clip. Only the motion modules depend on the frames' order, so to
        move their position encoding is the same as to move the frames.
        """
        if not self.window_shift:
            return [None] * len(self.steps)
        if frames not in self._orders:
            self._orders[frames] = [
                *frame_orders(frames, len(self.steps), self.window_shift, self.models.device)
            ]
        return self._orders[frames]


def frame_orders(frames: int, steps: int, shift: int, device: torch.device) -> list[Tensor]:
    """Positions (frames,) of a clip's frames at each step, when it rotates by `shift` frames a step."""
    places = torch.arange(frames, device=device)
    return [(places - index * shift) % frames for index in range(steps)]
