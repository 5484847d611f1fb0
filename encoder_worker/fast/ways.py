"""Ways of recording the fast decoder's CUDA graph: the fastest of a few, timed at warm-up."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from encoder_worker.fast.tiles import seconds_of
from protocol.process.logs import first_line

log = logging.getLogger(__name__)

ROUNDS = 6
LEVELS = 2.0
"""What pixels may differ by between ways, on average: tiles of other sizes add up in another order, which in
8-bit arithmetic is seen. A way that does not work differs by tens."""


@dataclass(frozen=True)
class Way:
    """How a graph is recorded.

    lanes: the frames are split in as many parts that run side by side in streams of their own, so that the
        last, partly filled round of blocks of a convolution and what only moves memory (GroupNorm) run while
        another lane multiplies.
    pdl: programmatic dependent launch, see `kernels`.
    """

    lanes: int = 1
    pdl: bool = False

    def __str__(self) -> str:
        lanes = f"{self.lanes} lane" + "s" * (self.lanes > 1)
        return f"{lanes}, PDL" if self.pdl else lanes


WAYS = (Way(),)
"""Tried at warm-up. Others wait to be timed on a GPU.

Run it as `python -m scripts.bench.gpu.decode --ways 1,2,1p,2p`.
"""


@dataclass(frozen=True)
class Recording:
    """A graph and how it was recorded."""

    way: Way
    graph: torch.cuda.CUDAGraph


def fastest_recording(
    record: Callable[[Way], torch.cuda.CUDAGraph], ways: Sequence[Way], pixels: Tensor
) -> Recording:
    """Records each of the ways, keeps the one whose replay takes least time. Those that fail, or make other
    `pixels` than the first, are passed over. While they are timed all of them hold their memory.

    Raises the last error if every one fails.
    """
    recordings: list[Recording] = []
    wanted: Tensor | None = None
    error: Exception | None = None
    for way in ways:
        try:
            recording = Recording(way, record(way))
            recording.graph.replay()
            torch.cuda.synchronize(pixels.device)
        except Exception as failed:  # a compiler, a driver, or no memory for one more
            error = failed
            log.warning("the fast decoder cannot run in %s: %s", way, first_line(failed))
            continue
        if wanted is None:
            wanted = pixels.clone()
        elif (pixels.float() - wanted.float()).abs().mean() > LEVELS:
            log.warning("the fast decoder makes other pictures in %s, which is not used", way)
            continue
        recordings.append(recording)
    if not recordings:
        raise error or ValueError("no way to record")
    return _fastest(recordings, pixels.device)


def _fastest(recordings: Sequence[Recording], device: torch.device) -> Recording:
    """By the least of some rounds, in turns, so that what else the GPU does slows each of them alike."""
    times = {recording.way: float("inf") for recording in recordings}
    for _ in range(ROUNDS):
        for recording in recordings:
            taken = seconds_of(recording.graph.replay, device)
            times[recording.way] = min(times[recording.way], taken)
    log.info("decoder: %s", ", ".join(f"{way} {1e3 * taken:.2f} ms" for way, taken in times.items()))
    return min(recordings, key=lambda recording: times[recording.way])
