"""Start-up by OpenVINO alone: a model that ships its networks, on a CPU, without torch."""

from __future__ import annotations

import logging

from gpu_worker.engine.cpu_denoiser import CpuDenoiser, ModelNumbers, pack_avatar, unpack_avatar
from gpu_worker.engine.parts import Encoders, LoadedModel, model_with_assets
from gpu_worker.engine.shipped_networks import ShippedNetworks, shipped_networks
from gpu_worker.kept_features import FeatureFolder
from gpu_worker.poses.store import ArrayMemory, host_budget
from gpu_worker.rate.clip_length import lengths_to_try
from protocol.model.audio_tokens import tokens_per_frame
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import PRECISIONS, CpuEngine, GraphUnavailable, import_openvino
from protocol.model.hardware.arithmetic import cpu_arithmetic
from protocol.model.hardware.drivers import only_a_cpu
from protocol.model.hardware.torch_missing import REMEDY, torch_is_installed
from protocol.model.vae_folder import VaeFolder
from protocol.process.logs import first_line
from protocol.process.settings import Settings, SettingsError
from protocol.wire.clock import FULL_RATE, frames_of_clip

logger = logging.getLogger(__name__)

#: Bytes of pose features kept in memory.
CPU_POSE_BYTES = 256 * 2**20


def shipped_denoiser(settings: Settings, config: ModelConfig) -> CpuDenoiser:
    """The denoiser by the networks that the model ships, ready for clips of the shortest length.

    Raises:
        GraphUnavailable: torch has to serve, with the reason.
        SettingsError: a file or a size cannot work. The message names it.
    """
    networks = _networks_or_reason(settings, config)
    if isinstance(networks, str):
        raise GraphUnavailable(networks)
    denoiser = CpuDenoiser(networks, ModelNumbers.of(settings, config))
    check_size(*config.picture_size(settings), denoiser.size_multiple)
    try:
        denoiser.prepare(*shortest_clip(settings, config))
    except GraphUnavailable:
        raise
    except Exception as error:  # a library fails in any way; torch may still work
        raise GraphUnavailable(f"this machine, where OpenVINO fails ({first_line(error)}),") from error
    return denoiser


def why_torch(settings: Settings, config: ModelConfig) -> str | None:
    """What needs torch, as the beginning of a sentence, or None where OpenVINO can serve alone.

    Nothing is compiled for the answer.

    Raises:
        SettingsError: a file cannot be read. The message names it.
    """
    found = _networks_or_reason(settings, config)
    return found if isinstance(found, str) else None


def _networks_or_reason(settings: Settings, config: ModelConfig) -> ShippedNetworks | str:
    """The networks that the model ships, or what needs torch. As `why_torch` otherwise."""
    guidance = config.cfg if settings.cfg is None else settings.cfg
    dtype = cpu_arithmetic(settings.dtype)[-1]
    if not computes_on_cpu(settings):
        return f"--gpu-devices {settings.gpu_devices[settings.worker_index]}"
    if settings.cpu_engine == "torch":
        return "--cpu-engine torch"
    if guidance > 1:
        return f"guidance {guidance:g} (--cfg)"
    if dtype not in PRECISIONS:
        return f"--dtype {dtype}"
    engine = CpuEngine.of(settings)
    width, height = config.picture_size(settings)
    networks = None if engine is None else shipped_networks(config, height, width, dtype, engine)
    if networks is None:
        return f"the model of {config.path}, which ships no networks for OpenVINO,"
    try:
        import_openvino()
    except GraphUnavailable as error:
        return f"this machine ({error})"
    return networks


def computes_on_cpu(settings: Settings) -> bool:
    """Whether this worker computes on the CPU alone. Torch is asked where a driver of a GPU is there."""
    name = settings.gpu_devices[settings.worker_index]
    if only_a_cpu([name]):
        return True
    if name != "auto":
        return False
    if not torch_is_installed():
        logger.warning("the CPU computes, although a GPU's driver is there: PyTorch is missing; %s", REMEDY)
        return True
    from protocol.model.hardware.devices import denoiser_device

    return denoiser_device(settings).type == "cpu"


def cpu_model(settings: Settings, config: ModelConfig, denoiser: CpuDenoiser) -> LoadedModel[CpuDenoiser]:
    """The model by OpenVINO with the avatars and poses that the settings name.

    Raises:
        AssetError: no picture or no pose can be read.
    """
    check_size(*config.picture_size(settings), denoiser.size_multiple)
    dtype = denoiser.networks.dtype
    encoders = Encoders(
        denoiser.prepare_reference,
        denoiser.encode_pose,
        ArrayMemory(),
        host_budget(CPU_POSE_BYTES),
        pack_avatar,
        unpack_avatar,
    )
    return model_with_assets(
        settings,
        config,
        denoiser,
        encoders,
        device_type="cpu",
        dtype=dtype,
        large=False,
        features=FeatureFolder.of(settings, config, ("openvino", dtype)),
    )


def shortest_clip(settings: Settings, config: ModelConfig) -> tuple[int, int, int, int]:
    """Frames, latent height, latent width and tokens a frame of a clip at --fps or 24 fps."""
    shortest, *_ = lengths_to_try(settings, "cpu", short_window=config.whisper_window == "short")
    width, height = config.picture_size(settings)
    factor = VaeFolder.of(config).factor
    frames = frames_of_clip(settings.fps or FULL_RATE, shortest)
    return frames, height // factor, width // factor, tokens_per_frame(settings.audio_margin)


def check_size(width: int, height: int, multiple: int) -> None:
    """Raises SettingsError where the pictures' sides in pixels are no multiples of this."""
    for flag, side in (("--width", width), ("--height", height)):
        if side % multiple:
            raise SettingsError(f"{flag} {side}: this model's pictures have multiples of {multiple}")


def check_late_start(settings: Settings, steps: int) -> None:
    """Raises SettingsError where --late-start leaves no step."""
    if (settings.late_start or 0) >= steps:
        raise SettingsError(
            f"--late-start {settings.late_start}: there are {steps} steps, so at most {steps - 1}"
        )


def tell_sampling(config: ModelConfig, steps: int, guidance: float) -> None:
    """Logs how the denoiser is sampled."""
    kind = "accelerated" if config.is_accelerated else "plain"
    name = config.denoising_unet_path.name
    logger.info("denoiser %s (%s model): %d steps, guidance %.1f", name, kind, steps, guidance)
