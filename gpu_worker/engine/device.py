"""The device and the arithmetic of this worker, from the settings and what the machine has."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from gpu_worker.engine_api import ClipError, DeviceLost
from protocol.hop.run_folder import make_folder
from protocol.process.settings import Settings, SettingsError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BF16_FLAGS = ("avx512_bf16", "amx_bf16", "bf16")  # x86, x86 with tiles, ARM


def choose_device(settings: Settings) -> torch.device:
    """The device of this worker's place in --gpu-devices; `auto` is the first CUDA device, else the CPU.

    Raises SettingsError for one that does not exist here.
    """
    name = settings.gpu_devices[settings.worker_index]
    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(f"--gpu-devices {name}: no device's name; say auto, cpu or cuda:0") from None
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"--gpu-devices {name}: only cpu and cuda devices are served")
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        device = torch.device("cuda", device.index or 0)
        if device.index >= count:
            raise SettingsError(f"--gpu-devices {name}: torch finds {count} CUDA devices here")
    return device


def dtype_choices(name: str, device: torch.device) -> list[torch.dtype]:
    """What --dtype leaves open; where there are two, the faster is found by timing a clip."""
    if name != "auto":
        return [DTYPES[name]]
    if device.type == "cuda":
        return [torch.float16]
    return [torch.float32, torch.bfloat16] if cpu_has_bf16() else [torch.float32]


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies bfloat16 by itself; elsewhere torch emulates it, many times slower."""
    try:
        words = set(cpuinfo.read_text(encoding="ascii", errors="replace").split())
    except OSError:
        return False
    return any(flag in words for flag in BF16_FLAGS)


def keep_compiled_code(settings: Settings) -> Path:
    """Tells torch, Triton and QuACK to keep what they compile, and where; a place the user named stays."""
    from torch._inductor.runtime import runtime_utils

    if runtime_utils.cache_dir() != runtime_utils.default_cache_dir():
        return Path(runtime_utils.cache_dir())
    # torch's own place is in the temporary files, which many systems empty at each start
    folder = Path.home() / ".cache" / "echomimic-live" / f"compiled-{torch.__version__}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            raise PermissionError
    except OSError:
        folder = settings.run_dir / "compiled"
        with contextlib.suppress(OSError):  # then torch says so, or the first socket does
            make_folder(settings.run_dir)
            make_folder(folder)  # marked, so that the run's end removes it
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    for name in ("triton", "quack"):
        os.environ.setdefault(f"{name.upper()}_CACHE_DIR", str(folder / name))
    return folder


@contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Turns the device's errors into those of `engine_api`.

    Raises:
        ClipError: memory ran out; other clips can still be made.
        DeviceLost: CUDA failed, and fails from now on.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        wait_for_device(device)  # work that has started still uses the memory to be released
        release_memory(device)
        raise ClipError(f"not enough memory on {device} for a clip of this size") from error
    except RuntimeError as error:
        if device.type == "cuda" and "CUDA error" in str(error):
            raise DeviceLost(str(error)) from error
        raise


def wait_for_device(device: torch.device) -> None:
    """Waits until the device has done all that it was given, so that any stream may use the results."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release_memory(device: torch.device) -> None:
    """Returns memory that torch holds unused to the device, for its other processes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def device_name(device: torch.device) -> str:
    """The device for status and logs, such as "cuda:0 (NVIDIA H100)" or "cpu (4 threads)"."""
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return f"cpu ({torch.get_num_threads()} threads)"
