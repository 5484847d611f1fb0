"""Whether the machine can have a usable GPU at all, by the files of its drivers. Does not import torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

#: The files by which NVIDIA's driver shows on Linux.
DRIVER_FILES = ("proc/driver/nvidia/version", "dev/nvidiactl")
#: WSL's door to any GPU, and the library that Windows adds where it has NVIDIA's driver.
WSL_FILES = ("dev/dxg", "usr/lib/wsl/lib/libcuda.so.1")
#: AMD's driver, which torch's builds for ROCm use under the name of CUDA.
ROCM_FILE = "dev/kfd"


def driver_is_there(root: Path = Path("/")) -> bool:
    """Whether the machine has NVIDIA's driver, whatever torch makes of it.

    Args:
        root: folder that stands for the root of the file system.
    """
    return any((root / name).exists() for name in DRIVER_FILES) or all(
        (root / name).exists() for name in WSL_FILES
    )


def only_a_cpu(devices: Sequence[str], root: Path = Path("/")) -> bool:
    """Whether processes on these devices surely compute on the CPU. Where torch has to be asked, False.

    Args:
        devices: as the settings name them, such as `cpu`, `auto` or `cuda:0`.
        root: folder that stands for the root of the file system.
    """
    if set(devices) == {"cpu"}:
        return True
    named = set(devices) - {"cpu", "auto"}
    return not named and not driver_is_there(root) and not (root / ROCM_FILE).exists()
