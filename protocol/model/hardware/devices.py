"""Which process computes on which device, from the settings and the GPUs that torch finds."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch

from protocol.model.hardware.gpu_fitness import usable_gpus, why_cpu, why_no_gpu, why_unfit
from protocol.process.settings import Settings, SettingsError

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")

#: Between the devices of a team, in one entry of `--gpu-devices`.
PLUS = "+"

#: Devices that a team may have: the divisors of a clip's 12 frames.
TEAM_SIZES = (2, 3, 4, 6)


def gpu_count() -> int:
    """CUDA devices that torch can use, 0 without a driver."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def device_named(name: str, flag: str) -> torch.device:
    """The device that a flag names: "cpu", "cuda" (the first GPU) or "cuda:N".

    Raises:
        SettingsError: not such a name, no such GPU here, or one that this torch cannot compute on. Names
            the flag, the reason and a remedy.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise SettingsError(f"{flag} {name}: not a device; write cpu, cuda:0 or auto")
    if device.type == "cpu":
        return CPU
    index = device.index or 0
    if index >= gpu_count():
        reason = why_no_gpu()
        raise SettingsError(
            f"{flag} {name}: this machine has {gpu_count()} CUDA devices" + (f": {reason}" if reason else "")
        )
    unfit = why_unfit(index)
    if unfit is not None:
        raise SettingsError(f"{flag} {name}: {unfit}")
    return torch.device("cuda", index)


def use_device(device: torch.device) -> None:
    """Makes a GPU the calling thread's. A thread begins with cuda:0, and would open a context there."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


def denoiser_device(settings: Settings) -> torch.device:
    """The device of a GPU worker: its place in `--gpu-devices`. `auto` is the first usable GPU, else the CPU.

    Of a team it is the first one, the leader's. A warning says why the CPU computes although NVIDIA's driver
    is there.

    Raises:
        SettingsError: no such device here, or no such team.
    """
    name = settings.gpu_devices[settings.worker_index]
    if name != "auto":
        return denoiser_devices(settings)[0]
    gpus = usable_gpus()
    if gpus:
        return torch.device("cuda", gpus[0])
    reason = why_cpu()
    if reason is not None:
        logger.warning("the CPU computes, although NVIDIA's driver is there: %s", reason)
    return CPU


def denoiser_devices(settings: Settings) -> tuple[torch.device, ...]:
    """The devices of a GPU worker: one, or those of a team, such as `cuda:0+cuda:1`, the leader's first.

    Raises:
        SettingsError: no such device here, or no such team.
    """
    name = settings.gpu_devices[settings.worker_index]
    if name == "auto":
        return (denoiser_device(settings),)
    devices = tuple(device_named(part, "--gpu-devices") for part in name.split(PLUS))
    if len(devices) > 1:
        _check_team(name, devices)
    return devices


def _check_team(name: str, devices: Sequence[torch.device]) -> None:
    where = f"--gpu-devices {name}"
    if len(devices) not in TEAM_SIZES:
        sizes = ", ".join(map(str, TEAM_SIZES[:-1]))
        raise SettingsError(f"{where}: {len(devices)} devices; a team has {sizes} or {TEAM_SIZES[-1]}")
    if len({device.type for device in devices}) > 1:
        raise SettingsError(f"{where}: a team is made of GPUs, or of cpu alone")
    gpus = [device for device in devices if device.type == "cuda"]
    if len(set(gpus)) < len(gpus):
        raise SettingsError(f"{where}: a GPU can be in a team once")
    kinds = sorted({torch.cuda.get_device_name(gpu) for gpu in gpus})
    if len(kinds) > 1:
        raise SettingsError(f"{where}: a team's GPUs are of one kind, and these are {' and '.join(kinds)}")


def _named_in(settings: Settings) -> list[str]:
    """Every device that `--gpu-devices` names, those of teams one by one."""
    return [part for name in settings.gpu_devices for part in name.split(PLUS)]


def decoder_device(settings: Settings) -> torch.device:
    """The device of an encoder worker. Workers take those of `--encoder-devices` in turn.

    `auto` is the first usable GPU that no GPU worker denoises on, else those in turn, else the CPU. It is
    also the CPU where `--gpu-devices` names nothing but `cpu`.

    Raises:
        SettingsError: no such device here.
    """
    name = settings.encoder_devices[settings.worker_index % len(settings.encoder_devices)]
    if name != "auto":
        return device_named(name, "--encoder-devices")
    gpus, named = usable_gpus(), _named_in(settings)
    if not gpus or set(named) == {"cpu"}:
        return CPU
    return torch.device("cuda", gpus[(len(named) + settings.worker_index) % len(gpus)])


def whisper_device(settings: Settings, window: str) -> torch.device:
    """The device of the audio worker: for a padded window the GPU workers' first GPU, else the CPU.

    Args:
        settings: of the worker, of which `gpu_devices` are read.
        window: "short" (1.5 s) or "padded" (30 s, twenty times the work).

    Raises:
        SettingsError: no such device here.
    """
    wanted = next((name for name in _named_in(settings) if name != "cpu"), None)
    gpus = usable_gpus()
    if window == "short" or wanted is None or not gpus:
        return CPU
    return torch.device("cuda", gpus[0]) if wanted == "auto" else device_named(wanted, "--gpu-devices")
