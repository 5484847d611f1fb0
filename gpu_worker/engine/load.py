"""Start-up with torch: weights in the arithmetic that is fastest here, on a GPU or a CPU.

On a CPU torch may also be what is traced for OpenVINO, where the model ships no networks for it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TypeAlias

import numpy as np
import torch

from gpu_worker.denoiser.loading import load_models
from gpu_worker.denoiser.model import ReferenceCache, attention
from gpu_worker.denoiser.pipeline import ClipDenoiser
from gpu_worker.engine.cpu_denoiser import CpuDenoiser
from gpu_worker.engine.cpu_model import (
    CPU_POSE_BYTES,
    check_late_start,
    check_size,
    cpu_model,
    shortest_clip,
    tell_sampling,
)
from gpu_worker.engine.kept_choice import KeptChoice
from gpu_worker.engine.openvino import flat_reference, traced_denoiser
from gpu_worker.engine.parts import Encoders, LoadedModel, model_with_assets
from gpu_worker.engine.tensor_arrays import pack_avatar, unpack_avatar
from gpu_worker.kept_features import FeatureFolder
from gpu_worker.poses.host_memory import HostMemory, TensorMemory
from gpu_worker.poses.store import host_budget
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine, best_times, is_faster
from protocol.model.hardware.arithmetic import cpu_arithmetic
from protocol.model.hardware.devices import denoiser_device, denoiser_devices, use_device
from protocol.model.hardware.dtypes import DTYPES, dtype_name, dtypes_to_try
from protocol.model.hardware.threads import thread_count
from protocol.process.logs import first_line
from protocol.process.settings import Settings, SettingsError
from protocol.wire.clock import FULL_RATE, frames_of_clip
from protocol.wire.limits import TOKEN_WIDTH

logger = logging.getLogger(__name__)

#: Bytes of pose features of a GPU. They lie in the host's memory, and there are less on a small machine.
GPU_POSE_BYTES = 2048 * 2**20

#: Parameters above which no second copy is loaded to compare arithmetic: it would cost more than it gains.
LARGE_MODEL = 200_000_000

#: A model by the library that serves.
AnyModel: TypeAlias = LoadedModel[ClipDenoiser] | LoadedModel[CpuDenoiser]


def load_model(settings: Settings) -> AnyModel:
    """Loads everything that the settings name onto this worker's device.

    Sets the number of torch's threads and, on CUDA, the current device of the calling thread.

    Raises:
        SettingsError: a file, a device or a size cannot work. The message names the flag or the file.
    """
    config = ModelConfig.load(settings.config)
    device = denoiser_device(settings)
    torch.set_num_threads(thread_count(settings))
    denoiser: ClipDenoiser | CpuDenoiser
    use_device(device)
    if device.type == "cuda":
        denoiser = _load_on_gpu(settings, config, device)
    else:
        denoiser = _load_on_cpu(settings, config)
    tell_sampling(config, len(denoiser.steps), denoiser.guidance_scale)
    if device.type == "cuda" and denoiser.guidance_scale > 1:
        logger.warning(
            "guidance %.1f runs the denoiser twice a step, and the fast path of --compile-unet does not take"
            " it; --cfg 1 does without", denoiser.guidance_scale,
        )  # fmt: skip
    check_late_start(settings, len(denoiser.steps))
    if isinstance(denoiser, CpuDenoiser):
        return cpu_model(settings, config, denoiser)
    check_size(*config.picture_size(settings), denoiser.size_multiple)
    on_cpu = device.type == "cpu"
    encoders = Encoders(
        denoiser.prepare_reference,
        lambda maps: denoiser.encode_pose(torch.from_numpy(maps)),
        TensorMemory() if on_cpu else HostMemory(device),
        host_budget(CPU_POSE_BYTES if on_cpu else GPU_POSE_BYTES),
        pack_avatar,
        unpack_avatar,
    )
    return model_with_assets(
        settings,
        config,
        denoiser,
        encoders,
        device_type=device.type,
        dtype=dtype_name(denoiser.models.dtype),
        large=denoiser.parameter_count > LARGE_MODEL,
        features=FeatureFolder.of(settings, config, ("torch", denoiser.models.dtype)) if on_cpu else None,
    )


def _load_on_gpu(settings: Settings, config: ModelConfig, device: torch.device) -> ClipDenoiser:
    dtype = dtypes_to_try(settings.dtype, device)[0]
    attention.select(device, dtype)
    return _load_denoiser(settings, config, device, dtype)


def _load_on_cpu(settings: Settings, config: ModelConfig) -> ClipDenoiser | CpuDenoiser:
    """The model by the library and the arithmetic that make a clip soonest, of those that are left open."""
    choices = cpu_arithmetic(settings.dtype)
    attention.select(torch.device("cpu"), DTYPES[choices[0]])
    # OpenVINO computes in the last dtype, bfloat16 where the processor has it. Where it serves, no other
    # copy of the model is loaded.
    team = len(denoiser_devices(settings)) > 1  # its members compute by torch
    engine = CpuEngine.of(settings) if not team else None
    kept = KeptChoice(settings, config, choices)
    known = None if team else kept.load()
    if known is not None:
        trial = _CpuTrial.load(settings, config, known.dtype)
        if known.serves == "torch":
            return trial.denoiser
        openvino = None if engine is None else trial.try_openvino(engine)
        if openvino is not None:
            return openvino
    return _time_on_cpu(settings, config, choices, engine, kept)


def _time_on_cpu(
    settings: Settings,
    config: ModelConfig,
    choices: Sequence[str],
    engine: CpuEngine | None,
    kept: KeptChoice,
) -> ClipDenoiser | CpuDenoiser:
    """As `_load_on_cpu`, by timing. The result is kept for the next start."""
    first = _CpuTrial.load(settings, config, choices[-1 if engine else 0])
    large = first.denoiser.parameter_count > LARGE_MODEL
    tried = engine is not None and (engine.forced or not large)
    openvino = first.try_openvino(engine) if engine is not None and tried else None
    if engine is not None and openvino is not None and first.openvino_serves(engine, openvino):
        kept.store("openvino", first.dtype)
        return openvino
    if large:
        choices = choices[:1]
    trials = [first if first.dtype == dtype else _CpuTrial.load(settings, config, dtype) for dtype in choices]
    fastest = 0
    if len(trials) > 1:
        best = best_times([trial.clip.by_torch for trial in trials])
        fastest = best.index(min(best))
        timed = ", ".join(f"{dtype} {seconds:.3f} s" for dtype, seconds in zip(choices, best, strict=True))
        logger.info("arithmetic: %s (a clip takes: %s)", choices[fastest], timed)
    if not tried or openvino is not None:  # else OpenVINO failed, and gets another chance at the next start
        kept.store("torch", choices[fastest])
    return trials[fastest].denoiser


@dataclass(frozen=True, eq=False)
class _CpuTrial:
    """The model in one arithmetic, and a clip to time it with, made at first use."""

    settings: Settings
    config: ModelConfig
    denoiser: ClipDenoiser
    dtype: str

    @classmethod
    def load(cls, settings: Settings, config: ModelConfig, dtype: str) -> _CpuTrial:
        denoiser = _load_denoiser(settings, config, torch.device("cpu"), DTYPES[dtype])
        return cls(settings, config, denoiser, dtype)

    @cached_property
    def clip(self) -> _BlankClip:
        return _blank_clip(self.settings, self.config, self.denoiser)

    def try_openvino(self, engine: CpuEngine) -> CpuDenoiser | None:
        """The denoiser by OpenVINO, ready for the clip's shape, or None, with the reason in the log."""
        try:
            openvino = traced_denoiser(self.denoiser, engine)
            openvino.prepare(*shortest_clip(self.settings, self.config))
        except Exception as error:  # a library that is not there, a conversion that fails; torch always works
            logger.warning("denoising by torch, OpenVINO cannot serve: %s", first_line(error))
            return None
        return openvino

    def openvino_serves(self, engine: CpuEngine, openvino: CpuDenoiser) -> bool:
        """Whether OpenVINO is to serve, by timing. The log says why."""
        by_torch, by_openvino = best_times([self.clip.by_torch, partial(self.clip.by_openvino, openvino)])
        serves = engine.forced or is_faster(by_openvino, by_torch)
        logger.info(
            "denoising by %s: in %s a clip takes torch %.3f s, OpenVINO %.3f s",
            "OpenVINO" if serves else "torch", self.dtype, by_torch, by_openvino,
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
        return self.denoiser.sample(self.noise, audio, self.pose, self.reference)

    def by_openvino(self, openvino: CpuDenoiser) -> object:
        """Makes the clip by OpenVINO."""
        pose, reference = self.pose.float().numpy(), flat_reference(self.reference).numpy()
        return openvino.sample(self.noise.numpy(), self.tokens.numpy(), pose, reference)


def _blank_clip(settings: Settings, config: ModelConfig, denoiser: ClipDenoiser) -> _BlankClip:
    """A clip at --fps or 24 fps of silence. Nothing of it is encoded, so this runs few networks of torch."""
    frames, h, w, token_count = shortest_clip(settings, config)
    models = denoiser.models
    pose = torch.zeros(frames, models.denoiser.config.block_out_channels[0], h, w, dtype=models.dtype)
    tokens = torch.zeros(frames, token_count, TOKEN_WIDTH)
    noise = np.random.default_rng(0).standard_normal((frames, denoiser.latent_channels, h, w), np.float32)
    return _BlankClip(denoiser, torch.from_numpy(noise), tokens, pose, denoiser.blank_reference(h, w))


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
