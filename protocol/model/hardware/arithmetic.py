"""The kinds of arithmetic that a CPU can compute in, by their names in settings. Does not import torch."""

from __future__ import annotations

from protocol.model.hardware.cpu_features import cpu_has_bfloat16


def cpu_arithmetic(name: str) -> list[str]:
    """The kinds that `--dtype` leaves open on a CPU, the most exact first.

    Args:
        name: one kind, or "auto": float32, and bfloat16 too on a CPU that multiplies it.
    """
    if name != "auto":
        return [name]
    return ["float32", "bfloat16"] if cpu_has_bfloat16() else ["float32"]
