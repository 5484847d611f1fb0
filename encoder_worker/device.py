"""Which device this worker decodes on."""

from __future__ import annotations

import torch

from protocol.process.settings import Settings, SettingsError


def choose_device(settings: Settings) -> torch.device:
    """The device `--encoder-devices` gives this worker; workers take them in turn.

    "auto" is the first GPU that no GPU worker denoises on, else the GPUs in turn, else the CPU. It is also
    the CPU where `--gpu-devices` names nothing but `cpu`.

    Raises:
        SettingsError: no such device here.
    """
    name = settings.encoder_devices[settings.worker_index % len(settings.encoder_devices)]
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        if gpus == 0 or set(settings.gpu_devices) == {"cpu"}:
            return torch.device("cpu")
        return torch.device("cuda", (len(settings.gpu_devices) + settings.worker_index) % gpus)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise SettingsError(f"--encoder-devices {name}: not a device; write cpu, cuda:0 or auto") from error
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise SettingsError(f"--encoder-devices {name}: this machine has {gpus} CUDA devices")
    return device
