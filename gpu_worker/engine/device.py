"""This worker's device: its errors, its memory, its compiled code, its name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from gpu_worker.engine_api import ClipError, DeviceLost
from protocol.model.kept_folder import kept_folder
from protocol.process.settings import Settings

#: Environment variable that names the folder of torch's compiled code.
TORCH_CACHE = "TORCHINDUCTOR_CACHE_DIR"


def keep_compiled_code(settings: Settings) -> Path:
    """Tells torch and Triton to keep compiled code in a folder, and returns it.

    A folder that the user named for torch stays. Else it is in the user's cache or, where that cannot be
    written, in the run's folder.
    """
    # By the variable and not by torch's function, whose import takes seconds that the fast path can spare.
    named = Path(os.environ.get(TORCH_CACHE, ""))
    own = (Path(tempfile.gettempdir()), "torchinductor_")
    if named.name and not (named.parent == own[0] and named.name.startswith(own[1])):
        return named
    # torch's own folder is among the temporary files, which many systems empty at each start.
    folder = kept_folder(settings, f"compiled-{torch.__version__}")
    os.environ[TORCH_CACHE] = str(folder)
    os.environ.setdefault("TRITON_CACHE_DIR", str(folder / "triton"))
    return folder


@contextmanager
def device_errors(device: torch.device) -> Iterator[None]:
    """Turns the device's errors into those of `engine_api`.

    Raises:
        ClipError: memory ran out. Other clips can still be made.
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


def to_host(*tensors: Tensor) -> list[Tensor]:
    """Copies in the host's memory, once the device has made them.

    On CUDA they are pinned, and the thread sleeps until all are there. A copy to other memory would wait
    within the driver, and hold up what other threads give to the device meanwhile.
    """
    if tensors[0].device.type != "cuda":
        return [tensor.cpu() for tensor in tensors]
    copies = [torch.empty(each.shape, dtype=each.dtype, pin_memory=True) for each in tensors]
    for copy, tensor in zip(copies, tensors, strict=True):
        copy.copy_(tensor, non_blocking=True)
    there = torch.cuda.Event(blocking=True)
    there.record()
    there.synchronize()
    return copies


def release_memory(device: torch.device) -> None:
    """Returns memory that torch holds unused to the device, for its other processes."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def device_name(device: torch.device, members: int = 1) -> str:
    """The device for status and logs, such as "cuda:0 (NVIDIA H100)" or "cpu (4 threads)".

    members: of the team whose leader has this device, which the name then says.
    """
    team = f"team of {members} led by " if members > 1 else ""
    if device.type == "cuda":
        return f"{team}{device} ({torch.cuda.get_device_name(device)})"
    return f"{team}cpu ({torch.get_num_threads()} threads)"
