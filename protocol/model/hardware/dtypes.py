"""torch's dtypes by their names in settings, and those that a device can compute in."""

from __future__ import annotations

import torch

from protocol.model.hardware.arithmetic import cpu_arithmetic
from protocol.model.hardware.gpu_fitness import has_poor_float16

#: The dtypes of models by their names in settings and configurations.
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def dtype_name(dtype: torch.dtype) -> str:
    """A dtype's name as `DTYPES` and the log have it: float32, bfloat16, float16, uint8."""
    return str(dtype).removeprefix("torch.")


def dtypes_to_try(name: str, device: torch.device) -> list[torch.dtype]:
    """The dtypes that `--dtype` leaves open on a device, the most exact first.

    Args:
        name: a name of `DTYPES`, or "auto": float16 on a GPU (float32 where that gives NaN), float32 on a
            CPU, and bfloat16 too on a CPU that multiplies it. Which of the two is faster depends on the
            model, so the caller times both.
        device: where the model computes.

    Raises:
        KeyError: no such name. Settings let none through.
    """
    if name != "auto" or device.type == "cpu":
        return [DTYPES[one] for one in cpu_arithmetic(name)]
    return [torch.float32 if has_poor_float16(device) else torch.float16]
