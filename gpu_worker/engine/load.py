"""Start-up: weights in the arithmetic that is fastest here, and the stores of avatars and poses."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from gpu_worker.avatars.store import AvatarStore
from gpu_worker.denoiser.loading import load_models
from gpu_worker.denoiser.model import ReferenceCache, attention
from gpu_worker.denoiser.pipeline import AvatarCache, ClipDenoiser
from gpu_worker.denoiser.sampler import draw_noise
from gpu_worker.engine.openvino import OpenVinoDenoiser
from gpu_worker.poses.store import PoseStore
from gpu_worker.poses.track import PoseTrack
from protocol.model.assets import avatar_paths, pose_paths
from protocol.model.audio_tokens import tokens_per_frame
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine, best_times, is_faster
from protocol.model.hardware.devices import denoiser_device, denoiser_devices
from protocol.model.hardware.dtypes import dtype_name, dtypes_to_try
from protocol.model.hardware.threads import thread_count
from protocol.process.logs import first_line
from protocol.process.settings import Settings, SettingsError
from protocol.wire.clock import FULL_RATE, frames_of_clip
from protocol.wire.limits import TOKEN_WIDTH

logger = logging.getLogger(__name__)

#: Bytes of reference features (keys and values of avatars) kept, by type of device.
REFERENCE_BYTES = {"cpu": 256 * 2**20, "cuda": 1024 * 2**20}

#: Bytes of pose features kept, by type of device.
POSE_BYTES = {"cpu": 256 * 2**20, "cuda": 1024 * 2**20}

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
        openvino: the model by OpenVINO, ready for clips at 24 fps or --fps, or None where torch serves.
    """

    config: ModelConfig
    denoiser: ClipDenoiser
    width: int
    height: int
    token_count: int
    avatars: AvatarStore[AvatarCache]
    poses: PoseStore
    openvino: OpenVinoDenoiser | None

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
    denoiser, openvino = _load_fastest(settings, config, device)
    _check_size(denoiser, width, height)
    _check_late_start(settings, len(denoiser.steps))
    _tell_sampling(config, denoiser)
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
        config, denoiser, width, height, tokens_per_frame(settings.audio_margin), avatars, poses, openvino
    )


def _load_fastest(
    settings: Settings, config: ModelConfig, device: torch.device
) -> tuple[ClipDenoiser, OpenVinoDenoiser | None]:
    """The model by the library and the arithmetic that make a clip soonest, of those that are left open."""
    choices = dtypes_to_try(settings.dtype, device)
    attention.select(device, choices[0])
    # OpenVINO computes in the last dtype, bfloat16 where the processor has it. Where it serves, no other
    # copy of the model is loaded.
    team = len(denoiser_devices(settings)) > 1  # its members compute by torch
    engine = CpuEngine.of(settings) if device.type == "cpu" and not team else None
    loaded = _load_denoiser(settings, config, device, choices[-1 if engine else 0])
    large = sum(p.numel() for p in loaded.models.denoiser.parameters()) > LARGE_MODEL
    if engine is not None and (engine.forced or not large):
        openvino = _openvino_if_faster(engine, loaded, _blank_clip(settings, config, loaded))
        if openvino is not None:
            return loaded, openvino
    if large:
        choices = choices[:1]
    denoisers = [
        loaded if loaded.models.dtype == dtype else _load_denoiser(settings, config, device, dtype)
        for dtype in choices
    ]
    if len(denoisers) == 1:
        return denoisers[0], None
    best = best_times([_blank_clip(settings, config, denoiser).by_torch for denoiser in denoisers])
    fastest = best.index(min(best))
    timed = ", ".join(f"{dtype_name(c)} {t:.3f} s" for c, t in zip(choices, best, strict=True))
    logger.info("arithmetic: %s (a clip takes: %s)", dtype_name(choices[fastest]), timed)
    return denoisers[fastest], None


def _openvino_if_faster(
    engine: CpuEngine, denoiser: ClipDenoiser, clip: _BlankClip
) -> OpenVinoDenoiser | None:
    """The denoiser by OpenVINO if it is to serve, ready for this clip's shape. The log says why."""
    openvino = _try_openvino(denoiser, engine, clip)
    if openvino is None:
        return None
    by_torch, by_openvino = best_times([clip.by_torch, partial(clip.by_openvino, openvino)])
    serves = engine.forced or is_faster(by_openvino, by_torch)
    logger.info(
        "denoising by %s: in %s a clip takes torch %.3f s, OpenVINO %.3f s",
        "OpenVINO" if serves else "torch", dtype_name(denoiser.models.dtype), by_torch, by_openvino,
    )  # fmt: skip
    return openvino if serves else None


def _try_openvino(denoiser: ClipDenoiser, engine: CpuEngine, clip: _BlankClip) -> OpenVinoDenoiser | None:
    """The denoiser by OpenVINO, ready for this clip's shape, or None, with the reason in the log."""
    try:
        openvino = OpenVinoDenoiser(denoiser, engine)
        openvino.prepare(clip.noise, clip.tokens, clip.pose, clip.reference)
        clip.by_openvino(openvino)
    except Exception as error:  # a library that is not there, a conversion that fails; torch always works
        logger.warning("denoising by torch, OpenVINO cannot serve: %s", first_line(error))
        return None
    return openvino


def _load_denoiser(
    settings: Settings, config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> ClipDenoiser:
    models = load_models(config, device, dtype)
    return ClipDenoiser(models, steps=settings.steps, guidance_scale=settings.cfg)


@dataclass(frozen=True, eq=False)
class _BlankClip:
    """The inputs of a clip for timing, as `ClipDenoiser` takes them."""

    denoiser: ClipDenoiser
    noise: torch.Tensor
    tokens: torch.Tensor
    pose: torch.Tensor
    reference: ReferenceCache

    def by_torch(self) -> object:
        """Makes the clip by torch."""
        audio = self.denoiser.project_audio(self.tokens)
        return self.denoiser.sample(self.noise, audio, self.pose, self.reference).cpu()

    def by_openvino(self, openvino: OpenVinoDenoiser) -> object:
        """Makes the clip by OpenVINO."""
        return openvino.sample(self.noise, self.tokens, self.pose, self.reference)


def _blank_clip(settings: Settings, config: ModelConfig, denoiser: ClipDenoiser) -> _BlankClip:
    """A clip at --fps or 24 fps of a black picture, an empty pose and silence."""
    width, height = config.picture_size(settings)
    frames = frames_of_clip(settings.fps or FULL_RATE, settings.clip_frames)
    reference = denoiser.prepare_reference(np.zeros((height, width, 3), np.uint8)).reference
    pose = denoiser.encode_pose(torch.zeros(frames, 3, height, width))
    tokens = torch.zeros(frames, tokens_per_frame(settings.audio_margin), TOKEN_WIDTH)
    shape = (frames, denoiser.latent_channels, *pose.shape[2:])
    noise = draw_noise(shape, torch.Generator().manual_seed(0)).to(denoiser.models.device)
    return _BlankClip(denoiser, noise, tokens, pose, reference)


def _check_size(denoiser: ClipDenoiser, width: int, height: int) -> None:
    models = denoiser.models
    multiple = models.vae_encoder.factor * 2 ** (models.denoiser.config.levels - 1)
    for flag, side in (("--width", width), ("--height", height)):
        if side % multiple:
            raise SettingsError(f"{flag} {side}: this model's pictures have multiples of {multiple}")


def _tell_sampling(config: ModelConfig, denoiser: ClipDenoiser) -> None:
    steps, scale = len(denoiser.steps), denoiser.guidance_scale
    logger.info(
        "denoiser %s (%s model): %d steps, guidance %.1f",
        config.denoising_unet_path.name, "accelerated" if config.is_accelerated else "plain", steps, scale,
    )  # fmt: skip
    if scale > 1 and denoiser.models.device.type == "cuda":
        logger.warning(
            "guidance %.1f runs the denoiser twice a step, and the fast path of --compile-unet does not take"
            " it; --cfg 1 does without", scale,
        )  # fmt: skip


def check_team(settings: Settings, members: int) -> None:
    """Raises SettingsError where a team of so many members cannot serve what the settings ask for."""
    where = f"--gpu-devices {settings.gpu_devices[settings.worker_index]}"
    if not settings.compile_unet:
        raise SettingsError(f"{where}: a team needs --compile-unet")
    frames = frames_of_clip(settings.fps or FULL_RATE, settings.clip_frames)
    if frames % members:
        raise SettingsError(f"{where}: {members} devices cannot share a clip of {frames} frames")
    cfg = settings.cfg or ModelConfig.load(settings.config).cfg
    if cfg > 1:
        raise SettingsError(f"{where}: a team has no guidance; choose --cfg 1 or one device")


def _check_late_start(settings: Settings, steps: int) -> None:
    if settings.late_start >= steps:
        raise SettingsError(
            f"--late-start {settings.late_start}: there are {steps} steps, so at most {steps - 1}"
        )
