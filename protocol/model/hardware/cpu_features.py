"""Whether the CPU multiplies bfloat16. Does not import torch."""

from __future__ import annotations

from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")

#: Linux's names for bfloat16 products: x86 with AVX-512, x86 with AMX tiles, 64-bit ARM.
BFLOAT16_FEATURES = frozenset({"avx512_bf16", "amx_bf16", "bf16"})

_FEATURE_FIELDS = ("flags", "Features")  # x86's and ARM's name of the line


def cpu_has_bfloat16(cpuinfo: Path = CPUINFO) -> bool:
    """Whether every core multiplies bfloat16 by itself.

    Elsewhere torch emulates it, many times slower than float32.

    Args:
        cpuinfo: the kernel's list of cores. One that cannot be read means no.
    """
    cores = _cores(cpuinfo)
    # Every core, since a thread may run on any of them and ARM mixes kinds of cores.
    return bool(cores) and all(core & BFLOAT16_FEATURES for core in cores)


def cpu_features(cpuinfo: Path = CPUINFO) -> frozenset[str]:
    """Linux's names of the features that every core has. Empty where the list cannot be read."""
    cores = _cores(cpuinfo)
    return frozenset(set.intersection(*cores)) if cores else frozenset()


def _cores(cpuinfo: Path) -> list[set[str]]:
    try:
        text = cpuinfo.read_text(encoding="ascii", errors="replace")
    except OSError:
        return []
    fields = (line.partition(":") for line in text.splitlines())
    return [set(values.split()) for name, _, values in fields if name.strip() in _FEATURE_FIELDS]
