"""How a call is timed and shown."""

from __future__ import annotations

import statistics
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")
DTYPE = torch.float16 if CUDA else torch.float32
HEADS = 8
Variant = tuple[str, dict[str, Any]]


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def milliseconds(call: Callable[[], object], repeat: int = 7) -> float:
    """Median time of a call on the device, from a CUDA graph of several, so that launches cost nothing."""
    if not CUDA:
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    call()
    end.record()
    end.synchronize()
    count = max(1, min(100, int(4 / max(begin.elapsed_time(end), 1e-3))))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            call()
    graph.replay()
    times: list[float] = []
    for _ in range(repeat):
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / count)
    return statistics.median(times)


def show(
    name: str, call: Callable[..., Tensor], flop: float = 0.0, moved: float = 0.0,
    wanted: Tensor | None = None, part: Callable[..., Tensor] = lambda x: x,
) -> None:  # fmt: skip
    """Print one line. A variant that fails says why, and the others go on."""
    try:
        made = call()
        error = ""
        if wanted is not None:
            difference = (part(made).float() - wanted.float()).norm() / wanted.float().norm()
            error = f"  err {difference.item():.1e}"
        del made
        ms = milliseconds(call)
        rate = f"{flop / ms * 1e-9:7.0f} TFLOP/s" if flop else " " * 15
        band = f" {moved / ms * 1e-9:6.2f} TB/s" if moved else ""
        say(f"  {name:58s} {ms:8.3f} ms {rate}{band}{error}")
    except Exception as problem:
        last = traceback.format_exc(limit=-1).strip().splitlines()[-1]
        say(f"  {name:58s} FAILED {type(problem).__name__}: {last[:160]}")


def rand(*shape: int) -> Tensor:
    return torch.randn(shape, device=DEVICE, dtype=torch.float32).to(DTYPE)
