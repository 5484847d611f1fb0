"""Start-up: weights in the arithmetic that is fastest here, and the stores of avatars and poses."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from gpu_worker.avatars.store import AvatarStore
from gpu_worker.denoiser.loading import load_models
from gpu_worker.denoiser.model import attention
from gpu_worker.denoiser.pipeline import AvatarCache, ClipDenoiser
from gpu_worker.poses.store import PoseStore
from gpu_worker.poses.track import PoseTrack
from protocol.model.assets import avatar_paths, pose_paths
from protocol.model.audio_tokens import tokens_per_frame
from protocol.model.config import ModelConfig
from protocol.model.hardware.devices import denoiser_device
from protocol.model.hardware.dtypes import dtype_name, dtypes_to_try
from protocol.model.hardware.threads import thread_count
from protocol.process.settings import Settings, SettingsError
from protocol.wire.clock import FULL_RATE, frames_of_clip
from protocol.wire.limits import TOKEN_WIDTH

logger = logging.getLogger(__name__)

#: Bytes of reference features (keys and values of avatars) kept, by type of device.
REFERENCE_BYTES = {"cpu": 256 * 2**20, "cuda": 1024 * 2**20}

#: Bytes of pose features kept, by type of device.
POSE_BYTES = {"cpu": 256 * 2**20, "cuda": 1024 * 2**20}

#: Runs of each arithmetic that count when the fastest is chosen; one more before them warms up.
TIMED_CLIPS = 3

#: Parameters above which no second copy is loaded to compare arithmetic: it would cost more than it gains.
LARGE_MODEL = 200_000_000


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model on its device, and the avatars and poses that it serves.

    Attributes:
        config: the model's configuration.
        denoiser: the model in plain torch. Its `models` are the networks, with their device and dtype.
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.
        token_count: audio tokens of a frame.
        avatars: reference features by name.
        poses: pose features by name and frame.
    """

    config: ModelConfig
    denoiser: ClipDenoiser
    width: int
    height: int
    token_count: int
    avatars: AvatarStore[AvatarCache]
    poses: PoseStore

    @property
    def device(self) -> torch.device:
        """The device that holds the networks."""
        return self.denoiser.models.device

    @property
    def dtype(self) -> torch.dtype:
        """The arithmetic of the networks."""
        return self.denoiser.models.dtype


def load_model(settings: Settings) -> LoadedModel:
    """Loads everything that the settings name onto this worker's device.

    Sets the number of torch's threads and, on CUDA, the current device of the calling thread.

    Raises:
        SettingsError: a file, a device or a size cannot work. The message names the flag or the file.
    """
    config = ModelConfig.load(settings.config)
    width, height = config.picture_size(settings)
    device = denoiser_device(settings)
    torch.set_num_threads(thread_count(settings))
    if device.type == "cuda":
        torch.cuda.set_device(device)
    denoiser = _load_fastest(settings, config, device)
    _check_size(denoiser, width, height)
    _check_late_start(settings, len(denoiser.steps))
    avatars = AvatarStore(
        avatar_paths(settings),
        width,
        height,
        denoiser.prepare_reference,
        size_of=lambda made: made.reference.nbytes,
        budget=REFERENCE_BYTES[device.type],
    )
    poses = PoseStore(
        pose_paths(settings),
        partial(PoseTrack.load, size=(height, width)),
        denoiser.encode_pose,
        budget=POSE_BYTES[device.type],
    )
    return LoadedModel(
        config, denoiser, width, height, tokens_per_frame(settings.audio_margin), avatars, poses
    )


def _load_fastest(settings: Settings, config: ModelConfig, device: torch.device) -> ClipDenoiser:
    """The model in the arithmetic that makes a clip soonest, of those that --dtype leaves open."""
    choices = dtypes_to_try(settings.dtype, device)
    attention.select(device, choices[0])
    first = _load_denoiser(settings, config, device, choices[0])
    parameters = sum(p.numel() for p in first.models.denoiser.parameters())
    if len(choices) == 1 or parameters > LARGE_MODEL:
        return first
    denoisers = [first, *(_load_denoiser(settings, config, device, dtype) for dtype in choices[1:])]
    clips = [_blank_clip(settings, config, denoiser) for denoiser in denoisers]
    # In turn and in processor time, so that other load on the machine favours neither.
    times = [[_cpu_seconds(clip) for clip in clips] for _ in range(TIMED_CLIPS + 1)][1:]
    best = [min(column) for column in zip(*times, strict=True)]
    fastest = best.index(min(best))
    timed = ", ".join(f"{dtype_name(c)} {t:.3f} s" for c, t in zip(choices, best, strict=True))
    logger.info("arithmetic: %s (a clip takes: %s)", dtype_name(choices[fastest]), timed)
    return denoisers[fastest]


def _load_denoiser(
    settings: Settings, config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> ClipDenoiser:
    models = load_models(config, device, dtype)
    return ClipDenoiser(models, steps=settings.steps, guidance_scale=settings.cfg)


def _blank_clip(settings: Settings, config: ModelConfig, denoiser: ClipDenoiser) -> Callable[[], object]:
    """A function that makes a clip at 24 fps of a black picture, an empty pose and silence, for timing."""
    width, height = config.picture_size(settings)
    frames = frames_of_clip(FULL_RATE, settings.clip_frames)
    reference = denoiser.prepare_reference(np.zeros((height, width, 3), np.uint8)).reference
    pose = denoiser.encode_pose(torch.zeros(frames, 3, height, width))
    tokens = torch.zeros(frames, tokens_per_frame(settings.audio_margin), TOKEN_WIDTH)
    return lambda: denoiser.denoise(tokens, pose, reference, None, torch.Generator().manual_seed(0)).cpu()


def _check_size(denoiser: ClipDenoiser, width: int, height: int) -> None:
    models = denoiser.models
    multiple = models.vae_encoder.factor * 2 ** (models.denoiser.config.levels - 1)
    for flag, side in (("--width", width), ("--height", height)):
        if side % multiple:
            raise SettingsError(f"{flag} {side}: this model's pictures have multiples of {multiple}")


def _check_late_start(settings: Settings, steps: int) -> None:
    if settings.late_start >= steps:
        raise SettingsError(
            f"--late-start {settings.late_start}: there are {steps} steps, so at most {steps - 1}"
        )


def _cpu_seconds(task: Callable[[], object]) -> float:
    """Processor time that the task takes, all threads together."""
    begin = time.process_time()
    task()
    return time.process_time() - begin
