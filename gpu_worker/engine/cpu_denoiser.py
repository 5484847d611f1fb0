"""The denoiser by OpenVINO on a CPU, in numpy: one network for the shape of most clips, one for any length.

The second makes the same latents and takes a fifth longer. Networks for three rates would take 65 MiB each.
It repacks the weights for its first clip, which takes 30 MiB and a second clip's time more. Each further
length takes 3 MiB. A pause makes the lengths of service ready (`warm`), so that a machine that falls behind
neither waits nor grows.

The avatar's keys and values are inputs of the network. As constants they would cost a compilation for each
avatar. The sampler's arithmetic is numpy's, so one network serves every step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpu_worker.denoiser.numbers import scheduler_config, unet_configs
from gpu_worker.denoiser.sampler import SchedulerConfig, SchedulerError, make_steps
from gpu_worker.engine.cpu_networks import CpuNetworks, DenoiserGraph
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import GraphUnavailable
from protocol.model.vae_folder import VaeFolder
from protocol.process.settings import Settings, SettingsError
from protocol.wire.limits import MAX_CLIP_FRAMES

Floats = NDArray[np.float32]

#: Frames, latent height, latent width, tokens of a frame.
Shape = tuple[int, int, int, int]

#: How pose features lie in memory and on disk, by the arithmetic: half of them would be lost in bfloat16.
FEATURE_DTYPES: Mapping[str, type[np.floating[Any]]] = {"float32": np.float32, "bfloat16": np.float16}


@dataclass(frozen=True)
class ModelNumbers:
    """The numbers of a model that sampling needs beside its networks.

    Attributes:
        scheduler: of the noise.
        steps: of the sampler.
        guidance_scale: 1.0 runs no unconditional half.
        window_shift: frames by which a clip rotates at each step.
        latent_channels: channels of the latents.
        max_frames: of the longest clip, or None without motion modules.
        size_multiple: the pictures' sides are multiples of it.
    """

    scheduler: SchedulerConfig
    steps: int
    guidance_scale: float
    window_shift: int
    latent_channels: int
    max_frames: int | None
    size_multiple: int

    @classmethod
    def of(cls, settings: Settings, config: ModelConfig) -> ModelNumbers:
        """The numbers that a configuration and the settings give.

        Raises:
            ConfigError: a number is missing or impossible. The message names the file.
        """
        unet, _ = unet_configs(config)
        vae = VaeFolder.of(config)
        return cls(
            scheduler_config(config),
            config.steps if settings.steps is None else settings.steps,
            config.cfg if settings.cfg is None else settings.cfg,
            config.window_shift,
            vae.latent_channels,
            None if unet.motion is None else unet.motion.max_frames,
            vae.factor * 2 ** (unet.levels - 1),
        )


@dataclass(frozen=True)
class CpuAvatar:
    """An avatar made ready: its keys and values, block after block, (N,)."""

    reference: Floats


class CpuDenoiser:
    """Samples clips by OpenVINO. Belongs to the compute thread, but for `encode_pose`.

    Args:
        networks: of the model.
        numbers: of the model.
        fallback: makes a clip of a shape for which a network fails, with the arguments of `sample`. None:
            the network for any length is made then.

    Raises:
        GraphUnavailable: guidance needs a second, unconditional half, and clips need motion modules.
        SettingsError: the number of steps is out of range.
    """

    def __init__(
        self,
        networks: CpuNetworks,
        numbers: ModelNumbers,
        fallback: Callable[[Floats, Floats, Floats, Floats, int], Floats] | None = None,
    ) -> None:
        if numbers.guidance_scale > 1:
            raise GraphUnavailable(f"guidance {numbers.guidance_scale} needs an unconditional half")
        if numbers.max_frames is None:
            raise GraphUnavailable("a denoiser without motion modules")
        self.guidance_scale = numbers.guidance_scale
        self.latent_channels = numbers.latent_channels
        self.max_frames = numbers.max_frames
        self.size_multiple = numbers.size_multiple
        self.networks = networks
        try:
            self.steps = make_steps(numbers.scheduler, numbers.steps)
        except SchedulerError as error:
            raise SettingsError(f"--steps: {error}") from error
        self._shift = numbers.window_shift
        self._fallback = fallback
        self._feature_dtype = FEATURE_DTYPES.get(networks.dtype, np.float32)
        self._favoured: tuple[Shape, DenoiserGraph] | None = None
        #: For clips of any length: the shape but for its frames, and the network.
        self._any_length: tuple[Shape, DenoiserGraph] | None = None
        #: Lengths of clips that it has made.
        self._lengths_made: set[int] = set()
        self._times = networks.times([step.timestep for step in self.steps])

    # ------------------------------------------------------------------ features

    def prepare_reference(self, picture: NDArray[np.uint8]) -> CpuAvatar:
        """Keys and values of an avatar's picture (height, width, 3), uint8 RGB."""
        return CpuAvatar(self.networks.reference(picture))

    def encode_pose(self, maps: Floats) -> NDArray[Any]:
        """Pose maps (n, 3, H, W) in 0..1 → features (n, c0, h, w)."""
        features = self.networks.pose(maps)
        with np.errstate(over="ignore"):
            short = features.astype(self._feature_dtype, copy=False)
        return short if np.isfinite(short).all() else features

    # ------------------------------------------------------------------ networks

    def prepare(self, frames: int, height: int, width: int, tokens: int) -> None:
        """Makes the network for clips of this shape, and forgets the one before.

        Args:
            frames: of a clip.
            height: of the latents.
            width: of the latents.
            tokens: audio tokens of a frame.

        Raises:
            Exception: whatever fails in OpenVINO.
        """
        shape = (frames, height, width, tokens)
        if self._favoured is None or self._favoured[0] != shape:
            self._favoured = None  # first, so that two are never in memory
            self._favoured = shape, self.networks.denoiser(*shape, any_length=False)

    def prepare_any_length(self, frames: int, height: int, width: int, tokens: int) -> None:
        """Makes the network for clips of all lengths and of this size. As `prepare` otherwise."""
        shape = (frames, height, width, tokens)
        if self._any_length is None or self._any_length[0][1:] != shape[1:]:
            self._any_length = None
            self._lengths_made.clear()
            self._any_length = shape, self.networks.denoiser(*shape, any_length=True)

    def cold(self, lengths: Sequence[int]) -> list[int]:
        """Those of these lengths that the network for any length is to make, and has not made yet."""
        if self._any_length is None:
            return []
        own = None if self._favoured is None else self._favoured[0][0]
        return [frames for frames in lengths if frames != own and frames not in self._lengths_made]

    def warm(self, latents: Floats, tokens: NDArray[Any], pose: NDArray[Any], reference: Floats) -> None:
        """Runs one step for clips of this one's shape. Arguments as for `sample`."""
        self.sample(latents, tokens, pose, reference, len(self.steps) - 1)
        if self._any_length is not None:
            self._any_length[1].release_file()

    def prepared(self, frames: int, height: int, width: int, tokens: int) -> bool:
        """Whether there is a network for clips of this shape."""
        return self._graph_for((frames, height, width, tokens)) is not None

    def prepared_frames(self, frames: int) -> bool:
        """Whether there is a network for clips of so many frames."""
        made = (self._favoured, self._any_length)
        return any(self.prepared(frames, *network[0][1:]) for network in made if network is not None)

    def _graph_for(self, shape: Shape) -> DenoiserGraph | None:
        if self._favoured is not None and self._favoured[0] == shape:
            return self._favoured[1]
        if self._any_length is not None and self._any_length[0][1:] == shape[1:]:
            return self._any_length[1] if shape[0] <= MAX_CLIP_FRAMES else None
        return None

    # ------------------------------------------------------------------ clips

    def sample(
        self, latents: Floats, tokens: NDArray[Any], pose: NDArray[Any], reference: Floats, start: int = 0
    ) -> Floats:
        """The sampling loop of one clip.

        Args:
            latents: starting latents (F, C, h, w).
            tokens: audio tokens (F, T, 384).
            pose: pose features (F, c0, h, w).
            reference: the avatar's keys and values (N,).
            start: number of the first step.

        Returns:
            Scaled latents (F, C, h, w).
        """
        frames, _, height, width = latents.shape
        shape = (frames, height, width, tokens.shape[1])
        tokens, pose = tokens.astype(np.float32, copy=False), pose.astype(np.float32, copy=False)
        if not self.prepared(*shape):
            if self._fallback is not None:
                return self._fallback(latents, tokens, pose, reference, start)
            self.prepare_any_length(*shape)
        graph = self._graph_for(shape)
        assert graph is not None, f"a clip has at most {MAX_CLIP_FRAMES} frames"
        if self._any_length is not None and graph is self._any_length[1]:
            self._lengths_made.add(frames)
        places = np.arange(frames)
        for index in range(start, len(self.steps)):
            # As the official pipeline rotates the clip: only the motion modules know the frames' order.
            order = (places - index * self._shift) % frames
            made = graph(latents, self._times[index], tokens, pose, order, reference)
            latents = self.steps[index](latents, made)
        return latents


def pack_avatar(made: CpuAvatar) -> dict[str, NDArray[Any]]:
    """An avatar's features as arrays, for `KeptReferences`."""
    return {"reference": made.reference}


def unpack_avatar(found: Mapping[str, NDArray[Any]]) -> CpuAvatar | None:
    """The features of arrays from `pack_avatar`, or None where they are missing."""
    reference = found.get("reference")
    return None if reference is None else CpuAvatar(reference)
