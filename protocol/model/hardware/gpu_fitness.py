"""Whether torch can compute on this machine's GPUs, and in half precision, else the reason and the remedy.

A driver older than torch needs, a card older than torch was compiled for, and cards whose half precision
gives NaN are told at start, because torch itself tells them late, or not at all.
"""

from __future__ import annotations

import ctypes.util
import os
import re
import sys
import warnings

import torch

from protocol.model.hardware.drivers import driver_is_there
from protocol.process.logs import first_line

#: Cards of compute capability 7.5 without tensor cores (TU116, TU117). Half precision gives NaN there.
POOR_FLOAT16 = re.compile(
    r"GTX 16[0-9]{2}|\b(MX450|MX550|T400|T500|T550|T600|T1000|T1200|T2000|CMP 30HX)\b", re.IGNORECASE
)
#: The compute capability of those cards.
TURING = (7, 5)

_HOW_TO_UPDATE = "install a newer driver (nvidia.com/drivers)"
_HOW_TO_DO_WITHOUT = "--gpu-devices cpu --encoder-devices cpu does without the GPU"


def why_no_gpu() -> str | None:
    """Why torch finds no GPU on a machine with NVIDIA's driver, and the remedy. None where nothing is wrong.

    None is also the answer without a driver, and where CUDA_VISIBLE_DEVICES hides every GPU.
    """
    if not driver_is_there() or torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return (
            f"this PyTorch ({torch.__version__}) is a build for the CPU alone; remove {sys.prefix} and start"
            " again, so that scripts/run_all.sh installs the build for NVIDIA GPUs"
        )
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return None
    return _reason_of_cuda(_error_of_cuda())


def _error_of_cuda() -> str:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.cuda.init()
    except Exception as error:  # a driver's errors are of any kind
        return first_line(error)
    return ""


def _reason_of_cuda(error: str) -> str:
    """A sentence for torch's error of initialising CUDA."""
    needs = f"this PyTorch is made for CUDA {torch.version.cuda}"
    if "too old" in error:
        found = re.search(r"found version (\d+)", error)
        served = f" (it serves CUDA {int(found[1]) // 1000}.{int(found[1]) % 1000 // 10})" if found else ""
        return f"NVIDIA's driver is too old{served}, and {needs}; {_HOW_TO_UPDATE}"
    if "driver/library version mismatch" in error.lower():
        return "NVIDIA's driver was updated and the old one still runs; restart the machine"
    if "unknown error" in error.lower() or "803" in error or "802" in error:
        return f"NVIDIA's driver does not start ({error}); restart the machine, or {_HOW_TO_UPDATE}"
    if not error and ctypes.util.find_library("cuda") is None:
        return (
            "NVIDIA's driver is loaded and its library libcuda.so.1 is not there; install it (on Debian:"
            " libcuda1), or start the container with --gpus all"
        )
    told = f" ({error})" if error else ""
    return f"CUDA finds no GPU{told}; see whether nvidia-smi lists one; {needs}"


def why_unfit(index: int) -> str | None:
    """Why this torch cannot compute on a GPU, and the remedy. None where it can.

    Binary code (`sm_…`) runs on cards of the same major capability and the same or a higher minor one.
    Intermediate code (`compute_…`) is compiled for newer cards as it is loaded.

    Args:
        index: of the GPU, as in `cuda:0`.
    """
    known = [code for code in map(_parsed, torch.cuda.get_arch_list()) if code is not None]
    if not known:  # another maker's GPUs
        return None
    major, minor = torch.cuda.get_device_capability(index)
    if any(_runs_on(code, (major, minor)) for code in known):
        return None
    versions = sorted({code[1] for code in known})
    oldest, newest = (f"{a}.{b}" for a, b in (versions[0], versions[-1]))
    remedy = (
        "use an older PyTorch with code for it" if (major, minor) < versions[0] else "use a newer PyTorch"
    )
    return (
        f"{torch.cuda.get_device_name(index)} has compute capability {major}.{minor}, and this PyTorch"
        f" ({torch.__version__}) has code for {oldest} to {newest}; {remedy}, or another card;"
        f" {_HOW_TO_DO_WITHOUT}"
    )


def _parsed(code: str) -> tuple[str, tuple[int, int]] | None:
    """("sm" or "compute", (major, minor)) of an entry such as sm_86, sm_90a or compute_120."""
    match = re.fullmatch(r"(sm|compute)_(\d+)(\d)[a-z]?", code)
    return (match[1], (int(match[2]), int(match[3]))) if match else None


def _runs_on(code: tuple[str, tuple[int, int]], card: tuple[int, int]) -> bool:
    kind, made_for = code
    return card >= made_for if kind == "compute" else (card[0] == made_for[0] and card[1] >= made_for[1])


def usable_gpus() -> list[int]:
    """Numbers of the GPUs that this torch can compute on. Empty without a driver."""
    if not torch.cuda.is_available():
        return []
    return [index for index in range(torch.cuda.device_count()) if why_unfit(index) is None]


def why_cpu() -> str | None:
    """Why `auto` computes on the CPU although NVIDIA's driver is there, and the remedy. None otherwise."""
    if usable_gpus():
        return None
    unfit = [why_unfit(i) for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return unfit[0] if unfit else why_no_gpu()


def has_poor_float16(device: torch.device) -> bool:
    """Whether half precision on this device gives NaN, as on NVIDIA's GTX 16 series."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    if torch.cuda.get_device_capability(device) != TURING:
        return False
    return POOR_FLOAT16.search(torch.cuda.get_device_name(device)) is not None
