"""Start-up: weights in the arithmetic that is fastest here, and the stores of avatars and poses."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch

from gpu_worker.avatars.store import AvatarStore
from gpu_worker.denoiser.loading import load_models
from gpu_worker.denoiser.model import ReferenceCache, attention
from gpu_worker.denoiser.pipeline import AvatarCache, ClipDenoiser
from gpu_worker.denoiser.sampler import draw_noise
from gpu_worker.engine.kept_choice import KeptChoice
from gpu_worker.engine.openvino import OpenVinoDenoiser
from gpu_worker.engine.tensor_arrays import pack_avatar, unpack_avatar
from gpu_worker.kept_features import FeatureFolder, KeptPoses, KeptReferences
from gpu_worker.poses.host_memory import HostMemory, TensorMemory, host_budget
from gpu_worker.poses.store import PoseStore
from gpu_worker.poses.track import PoseTrack
from gpu_worker.rate.clip_length import lengths_to_try
from protocol.model.assets import avatar_paths, pose_paths
from protocol.model.audio_tokens import tokens_per_frame
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine, best_times, is_faster
from protocol.model.hardware.devices import denoiser_device, denoiser_devices
from protocol.model.hardware.dtypes import dtype_name, dtypes_to_try
from protocol.model.hardware.threads import thread_count
from protocol.model.own_avatars import own_avatar_folder
from protocol.process.logs import first_line
from protocol.process.settings import Settings, SettingsError
from protocol.wire.clock import FULL_RATE, frames_of_clip
from protocol.wire.limits import TOKEN_WIDTH

logger = logging.getLogger(__name__)

#: Bytes of reference features (keys and values of avatars) kept, by type of device.
REFERENCE_BYTES = {"cpu": 256 * 2**20, "cuda": 1024 * 2**20}

#: Bytes of pose features kept, by type of device. Those of a GPU lie in the host's memory, and there are less
#: on a small machine.
POSE_BYTES = {"cpu": 256 * 2**20, "cuda": 2048 * 2**20}

#: Pose frames encoded at a time, by type of device. A clip that comes waits for those that are under way, and
#: most of their time goes into drawing.
POSE_BATCH = {"cpu": 12, "cuda": 4}

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
        features: the folder of what is kept for the next start, or None where nothing is kept.
    """

    config: ModelConfig
    denoiser: ClipDenoiser
    width: int
    height: int
    token_count: int
    avatars: AvatarStore[AvatarCache]
    poses: PoseStore[torch.Tensor]
    openvino: OpenVinoDenoiser | None
    features: FeatureFolder | None

    @property
    def device(self) -> torch.device:
        """The device that holds the networks."""
        return self.denoiser.models.device

    @property
    def dtype(self) -> torch.dtype:
        """The arithmetic of the networks."""
        return self.denoiser.models.dtype

    @property
    def latent_size(self) -> tuple[int, int, int]:
        """Channels, height and width of latents."""
        factor = self.denoiser.models.vae_encoder.factor
        return self.denoiser.latent_channels, self.height // factor, self.width // factor


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
    denoiser, openvino, features = _load_fastest(settings, config, device)
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
        kept=None if features is None else _kept_references(features),
        own_folder=own_avatar_folder(settings),
    )
    poses = PoseStore(
        pose_paths(settings),
        partial(PoseTrack.load, size=(height, width)),
        lambda maps: denoiser.encode_pose(torch.from_numpy(maps)),
        TensorMemory() if device.type == "cpu" else HostMemory(device),
        budget=host_budget(POSE_BYTES[device.type]),
        batch=POSE_BATCH[device.type],
        kept=None if features is None else KeptPoses(features),
    )
    tokens = tokens_per_frame(settings.audio_margin)
    return LoadedModel(config, denoiser, width, height, tokens, avatars, poses, openvino, features)


def _load_fastest(
    settings: Settings, config: ModelConfig, device: torch.device
) -> tuple[ClipDenoiser, OpenVinoDenoiser | None, FeatureFolder | None]:
    """The model by the library and the arithmetic that make a clip soonest, of those that are left open.

    On a CPU the third is the folder of its kept features, if there can be one.
    """
    choices = dtypes_to_try(settings.dtype, device)
    attention.select(device, choices[0])
    if device.type != "cpu":
        return _load_denoiser(settings, config, device, choices[0]), None, None
    # OpenVINO computes in the last dtype, bfloat16 where the processor has it. Where it serves, no other
    # copy of the model is loaded.
    team = len(denoiser_devices(settings)) > 1  # its members compute by torch
    engine = CpuEngine.of(settings) if not team else None
    kept = KeptChoice(settings, config, choices)
    known = None if team else kept.load()
    if known is not None:
        trial = _CpuTrial.load(settings, config, known.dtype)
        if known.serves == "torch":
            return trial.denoiser, None, trial.features
        openvino = None if engine is None else trial.try_openvino(engine)
        if openvino is not None:
            return trial.denoiser, openvino, trial.features
    return _time_on_cpu(settings, config, choices, engine, kept)


def _time_on_cpu(
    settings: Settings,
    config: ModelConfig,
    choices: Sequence[torch.dtype],
    engine: CpuEngine | None,
    kept: KeptChoice,
) -> tuple[ClipDenoiser, OpenVinoDenoiser | None, FeatureFolder | None]:
    """As `_load_fastest`, by timing. The result is kept for the next start."""
    first = _CpuTrial.load(settings, config, choices[-1 if engine else 0])
    large = sum(p.numel() for p in first.denoiser.models.denoiser.parameters()) > LARGE_MODEL
    tried = engine is not None and (engine.forced or not large)
    openvino = first.try_openvino(engine) if engine is not None and tried else None
    if engine is not None and openvino is not None and first.openvino_serves(engine, openvino):
        kept.store("openvino", first.denoiser.models.dtype)
        return first.denoiser, openvino, first.features
    if large:
        choices = choices[:1]
    trials = [
        first if first.denoiser.models.dtype == dtype else _CpuTrial.load(settings, config, dtype)
        for dtype in choices
    ]
    fastest = 0
    if len(trials) > 1:
        best = best_times([trial.clip.by_torch for trial in trials])
        fastest = best.index(min(best))
        timed = ", ".join(f"{dtype_name(c)} {t:.3f} s" for c, t in zip(choices, best, strict=True))
        logger.info("arithmetic: %s (a clip takes: %s)", dtype_name(choices[fastest]), timed)
    if not tried or openvino is not None:  # else OpenVINO failed, and gets another chance at the next start
        kept.store("torch", choices[fastest])
    return trials[fastest].denoiser, None, trials[fastest].features


@dataclass(frozen=True, eq=False)
class _CpuTrial:
    """The model in one arithmetic, its kept features, and a clip to time it with, made at first use."""

    settings: Settings
    config: ModelConfig
    denoiser: ClipDenoiser
    features: FeatureFolder | None

    @classmethod
    def load(cls, settings: Settings, config: ModelConfig, dtype: torch.dtype) -> _CpuTrial:
        denoiser = _load_denoiser(settings, config, torch.device("cpu"), dtype)
        return cls(settings, config, denoiser, FeatureFolder.of(settings, config, dtype))

    @cached_property
    def clip(self) -> _BlankClip:
        return _blank_clip(self.settings, self.config, self.denoiser, self.features)

    def try_openvino(self, engine: CpuEngine) -> OpenVinoDenoiser | None:
        """The denoiser by OpenVINO, ready for the clip's shape, or None, with the reason in the log."""
        clip = self.clip
        try:
            openvino = OpenVinoDenoiser(self.denoiser, engine)
            openvino.prepare(clip.noise, clip.tokens, clip.pose, clip.reference)
            clip.by_openvino(openvino)
        except Exception as error:  # a library that is not there, a conversion that fails; torch always works
            logger.warning("denoising by torch, OpenVINO cannot serve: %s", first_line(error))
            return None
        return openvino

    def openvino_serves(self, engine: CpuEngine, openvino: OpenVinoDenoiser) -> bool:
        """Whether OpenVINO is to serve, by timing. The log says why."""
        by_torch, by_openvino = best_times([self.clip.by_torch, partial(self.clip.by_openvino, openvino)])
        serves = engine.forced or is_faster(by_openvino, by_torch)
        logger.info(
            "denoising by %s: in %s a clip takes torch %.3f s, OpenVINO %.3f s",
            "OpenVINO" if serves else "torch", dtype_name(self.denoiser.models.dtype), by_torch, by_openvino,
        )  # fmt: skip
        return serves


def _load_denoiser(
    settings: Settings, config: ModelConfig, device: torch.device, dtype: torch.dtype
) -> ClipDenoiser:
    # On a CPU the pictures' features are kept on disk, so that most starts need no encoder.
    models = load_models(config, device, dtype, lazy_vae=device.type == "cpu")
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


def _blank_clip(
    settings: Settings, config: ModelConfig, denoiser: ClipDenoiser, features: FeatureFolder | None
) -> _BlankClip:
    """A clip at --fps or 24 fps of a black picture, silence, and pose features of zeros."""
    width, height = config.picture_size(settings)
    device_type = denoiser.models.device.type
    shortest, *_ = lengths_to_try(settings, device_type, short_window=config.whisper_window == "short")
    frames = frames_of_clip(settings.fps or FULL_RATE, shortest)
    black = np.zeros((height, width, 3), np.uint8)
    kept = None if features is None else _kept_references(features)
    cache = None if kept is None else kept.load(black)
    if cache is None:
        cache = denoiser.prepare_reference(black)
        if kept is not None:
            kept.store(black, cache)
    models = denoiser.models
    factor = models.vae_encoder.factor
    # Not encoded, so that a start whose features are all kept runs no network of torch.
    pose = torch.zeros(
        frames,
        models.denoiser.config.block_out_channels[0],
        height // factor,
        width // factor,
        dtype=models.dtype,
    )
    tokens = torch.zeros(frames, tokens_per_frame(settings.audio_margin), TOKEN_WIDTH)
    shape = (frames, denoiser.latent_channels, *pose.shape[2:])
    noise = torch.from_numpy(draw_noise(shape, np.random.default_rng(0))).to(denoiser.models.device)
    return _BlankClip(denoiser, noise, tokens, pose, cache.reference)


def _kept_references(folder: FeatureFolder) -> KeptReferences[AvatarCache]:
    return KeptReferences(folder, pack_avatar, unpack_avatar)


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
    frames = frames_of_clip(settings.fps or FULL_RATE, settings.frames_a_clip)
    if frames % members:
        raise SettingsError(f"{where}: {members} devices cannot share a clip of {frames} frames")
    cfg = settings.cfg or ModelConfig.load(settings.config).cfg
    if cfg > 1:
        raise SettingsError(f"{where}: a team has no guidance; choose --cfg 1 or one device")


def _check_late_start(settings: Settings, steps: int) -> None:
    if (settings.late_start or 0) >= steps:
        raise SettingsError(
            f"--late-start {settings.late_start}: there are {steps} steps, so at most {steps - 1}"
        )
