"""What a process holds of its CUDA device, for its metrics."""

from __future__ import annotations

import torch


def device_memory(device: torch.device) -> dict[str, float]:
    """Bytes of tensors now and at most, and the most that torch's allocator held; nothing on a CPU.

    The process takes more by its CUDA context and its libraries, about half a gigabyte.
    """
    if device.type != "cuda":
        return {}
    return {
        "device_memory_bytes": float(torch.cuda.memory_allocated(device)),
        "device_memory_peak_bytes": float(torch.cuda.max_memory_allocated(device)),
        "device_memory_reserved_bytes": float(torch.cuda.max_memory_reserved(device)),
    }
