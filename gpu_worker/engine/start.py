"""Start-up: the parts by OpenVINO alone where they can serve, else by torch, which is imported only then."""

from __future__ import annotations

import logging

from gpu_worker.engine.cpu_denoiser import CpuDenoiser
from gpu_worker.engine.cpu_model import check_late_start, cpu_model, shipped_denoiser, tell_sampling
from gpu_worker.engine.cpu_sampler import CpuSampler, HostDevice
from gpu_worker.engine.parts import LoadedModel, Parts
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import GraphUnavailable
from protocol.model.hardware.threads import thread_count
from protocol.model.hardware.torch_missing import require_torch
from protocol.process.settings import Settings

logger = logging.getLogger(__name__)


def load_parts(settings: Settings) -> Parts:
    """Loads everything that the settings name onto this worker's device.

    Raises:
        SettingsError: a file, a device or a size cannot work, or torch is needed and not installed. The
            message names the flag or the file.
    """
    config = ModelConfig.load(settings.config)
    try:
        denoiser = shipped_denoiser(settings, config)
    except GraphUnavailable as reason:
        require_torch(str(reason))
        logger.debug("torch is loaded: %s", reason)
        return _load_by_torch(settings)
    tell_sampling(config, len(denoiser.steps), denoiser.guidance_scale)
    check_late_start(settings, len(denoiser.steps))
    return cpu_parts(settings, cpu_model(settings, config, denoiser))


def cpu_parts(settings: Settings, model: LoadedModel[CpuDenoiser]) -> Parts:
    """The parts of an engine by OpenVINO."""
    device = HostDevice(thread_count(settings), model.dtype)
    return Parts(model, CpuSampler(settings, model.denoiser, model.config.steps), device)


def _load_by_torch(settings: Settings) -> Parts:
    # Here, because the imports take a second and 190 MB.
    from gpu_worker.engine.torch_parts import load_torch_parts

    made = load_torch_parts(settings)
    return made if isinstance(made, Parts) else cpu_parts(settings, made)
