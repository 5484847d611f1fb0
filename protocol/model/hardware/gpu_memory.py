"""How much of its GPU's memory a process holds, for its metrics."""

from __future__ import annotations

import torch


def device_memory(device: torch.device) -> dict[str, float]:
    """Bytes of tensors now and at most, and the most that torch's allocator held. Empty for a CPU.

    The CUDA context and its libraries take about half a gigabyte more.
    """
    if device.type != "cuda":
        return {}
    return {
        "device_memory_bytes": float(torch.cuda.memory_allocated(device)),
        "device_memory_peak_bytes": float(torch.cuda.max_memory_allocated(device)),
        "device_memory_reserved_bytes": float(torch.cuda.max_memory_reserved(device)),
    }
