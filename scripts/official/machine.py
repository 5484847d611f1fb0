"""Prints how fast this machine would be with the official weights, as JSON, before they are fetched.

    python -m scripts.official.machine

A process of its own, as torch takes seconds to import and memory that a launcher would keep.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

from scripts.run.start import command_of

#: Operations of one sampling step of a clip of 12 frames (half a second of speech) at 768×768 and 512×512.
#: Source: counted on the official modules, docs/lab/gpu-denoiser.md.
STEP_OPERATIONS = {768: 42.1e12, 512: 15.0e12}
#: Bytes of GPU memory below which the official weights are in doubt. Source: docs/lab/gpu-serving.md#memory.
MEMORY = 11_500_000_000
#: Side of the matrices whose product is timed, and seconds of timing for each dtype.
MATRIX_SIDE = 1024
TIMING_SECONDS = 0.4
#: Seconds that the process gets.
PATIENCE = 120.0


@dataclass(frozen=True)
class Outlook:
    """How this machine would compute.

    Attributes:
        gpu: name of the GPU, or None where the CPU computes.
        memory: bytes of the GPU's memory, 0 where the CPU computes.
        reason: why the CPU computes although NVIDIA's driver is there, or None.
        flops: operations that the CPU does in a second, 0 where the GPU computes.
    """

    gpu: str | None
    memory: int
    reason: str | None
    flops: float


def ask_outlook() -> Outlook | None:
    """The outlook from a process of its own, or None where that fails."""
    try:
        done = subprocess.run(
            command_of(sys.executable, __name__), capture_output=True, text=True, timeout=PATIENCE, check=True
        )
        return Outlook(**json.loads(done.stdout))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError):
        return None


def cpu_warning(outlook: Outlook, steps: int, guidance: float) -> str:
    """A sentence on the speed of a CPU.

    Args:
        outlook: of this machine, without a GPU.
        steps: of sampling.
        guidance: its scale; above 1 each step runs the denoiser twice.
    """
    runs = steps * (2 if guidance > 1 else 1)
    each = {side: _duration(runs * work / outlook.flops) for side, work in STEP_OPERATIONS.items()}
    why = f"NVIDIA's driver is there, but {outlook.reason}" if outlook.reason else "there is no NVIDIA GPU"
    return (
        f"WARNING: {why}. The official weights need one. On this CPU half a second of speech would take about"
        f" {each[768]} at 768×768, or {each[512]} at 512×512 ({outlook.flops / 1e9:.0f} GFLOP/s measured):"
        " far from real time. Without --model official the bundled model speaks live on a CPU."
    )


def memory_warning(outlook: Outlook) -> str | None:
    """A sentence for a GPU whose memory is too small for all stages at 512×512, else None."""
    if outlook.gpu is None or outlook.memory >= MEMORY:
        return None
    return (
        f"WARNING: {outlook.gpu} has {outlook.memory / 1e9:.0f} GB of memory, and all stages together take up"
        " to 12 GB at 512×512, more at 768×768. --decoder tiny and --encoder-devices cpu take less."
    )


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


def measure() -> Outlook:
    """The outlook, by torch."""
    import torch

    from protocol.model.hardware.dtypes import dtypes_to_try
    from protocol.model.hardware.gpu_fitness import usable_gpus, why_cpu

    gpus = usable_gpus()
    if gpus:
        card = torch.cuda.get_device_properties(gpus[0])
        return Outlook(card.name, card.total_memory, None, 0.0)
    dtypes = dtypes_to_try("auto", torch.device("cpu"))
    return Outlook(None, 0, why_cpu(), max(_cpu_flops(dtype) for dtype in dtypes))


def _cpu_flops(dtype: object) -> float:
    import torch

    matrix = torch.randn(MATRIX_SIDE, MATRIX_SIDE).to(dtype)  # type: ignore[call-overload]
    matrix @ matrix
    begin, count = time.perf_counter(), 0
    while time.perf_counter() - begin < TIMING_SECONDS:
        matrix @ matrix
        count += 1
    return float(2 * MATRIX_SIDE**3 * count / (time.perf_counter() - begin))


if __name__ == "__main__":
    print(json.dumps(asdict(measure())))
