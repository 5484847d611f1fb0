"""Programmatic dependent launch (PDL; compute capability 9.0 and later) of the kernels in this package.

Usually a kernel begins when the one before has ended and its writes are visible. With PDL it may be set up
and its blocks become resident as soon as every block of the one before has said so or has ended, and it waits
by itself, in `await_previous`. What is hidden is a kernel's beginning, a microsecond or so of each.

Why the chain stays correct: every block of every kernel here waits before it reads or writes any memory, and
the wait lasts until the whole kernel before has ended and its writes are visible. That kernel cannot have
ended before its own wait, and so on back: when the wait returns, everything launched earlier is over, so
memory that was freed may be written again too. Kernels of cuBLAS, cuDNN and torch in between are launched as
usual, hence begin when all before has ended. A block must not return before its wait.

A CUDA graph keeps such launches as programmatic edges when it is captured.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
import triton
import triton.language as tl

_PROGRAMMATIC: ContextVar[bool] = ContextVar("programmatic dependent launch", default=False)


@triton.jit
def await_previous(PDL: tl.constexpr):
    """First in each kernel: waits for the kernel before and lets the next one's blocks become resident.

    The next one's come only when all blocks of this kernel are resident, so they take no place from them.
    """
    if PDL:
        tl.extra.cuda.gdc_wait()
        tl.extra.cuda.gdc_launch_dependents()


def can_launch_early() -> bool:
    """Whether the current device and this Triton have programmatic dependent launch."""
    if not torch.cuda.is_available() or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability() >= (9, 0) and hasattr(tl.extra.cuda, "gdc_wait")


@contextmanager
def programmatic(on: bool) -> Iterator[None]:
    """Within it, this thread's kernels are launched with PDL, or without."""
    token = _PROGRAMMATIC.set(on)
    try:
        yield
    finally:
        _PROGRAMMATIC.reset(token)


def launch_options() -> dict[str, bool]:
    """What each launch of a kernel with a `PDL` switch is given."""
    return {"PDL": True, "launch_pdl": True} if _PROGRAMMATIC.get() else {"PDL": False}
