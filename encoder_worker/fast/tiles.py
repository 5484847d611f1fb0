"""Which tile a convolution of the fast decoder is cut into: the fastest of a few, timed at warm-up.

The candidates are those that were fastest somewhere on an H200 (`python -m scripts.bench.gpu.decode_tiles`
times them all). A tile that a GPU cannot hold (shared memory, registers) fails to launch and is passed over.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import torch

logger = logging.getLogger(__name__)

#: Results with fewer values than this take a smaller tile untimed, so that all of the chip has some.
SMALL = 16 * 2**20
ROUNDS = 5


@dataclass(frozen=True)
class ConvTile:
    """Rows, columns and depth of a convolution's tile, the copies in flight, the warps."""

    rows: int
    columns: int
    depth: int
    stages: int
    warps: int

    def within(self, inputs: int, outputs: int) -> ConvTile:
        """The same, narrowed until it divides a convolution's widths (small models)."""
        return replace(
            self, columns=largest_power(outputs, self.columns), depth=largest_power(inputs, self.depth)
        )


TALL, WIDE = ConvTile(256, 128, 64, 3, 8), ConvTile(128, 256, 64, 3, 8)
SQUARE = ConvTile(128, 128, 64, 4, 4)
#: Two of these fit on a multiprocessor at once: one stores its results while the other multiplies.
LIGHT = ConvTile(128, 128, 64, 3, 4)
HALF = (TALL, WIDE, SQUARE, LIGHT)
EIGHT_BIT = (ConvTile(128, 128, 128, 4, 4), ConvTile(128, 128, 128, 3, 4), ConvTile(256, 128, 128, 3, 8))

#: Of 8-bit convolutions without the tensor copy engine: within the 99 KB of shared memory of such cards.
POINTER_TILES = (
    *(ConvTile(128, 128, 64, stages, warps) for stages, warps in ((4, 8), (3, 8), (4, 4))),
    *(ConvTile(128, 128, 128, 2, 8), ConvTile(128, 128, 128, 3, 8), ConvTile(128, 64, 128, 3, 4)),
)


def candidates(inputs: int, outputs: int, size: int, *, eight_bit: bool) -> list[ConvTile]:
    """Tiles worth timing, the one to take untimed first. size: values of the result."""
    if eight_bit:
        tiles: tuple[ConvTile, ...] = EIGHT_BIT
    else:
        tiles = (SQUARE if size < SMALL else WIDE if outputs == 256 else TALL, *HALF)
    return list(dict.fromkeys(tile.within(inputs, outputs) for tile in tiles))


def fastest(tiles: Iterable[ConvTile], run: Callable[[ConvTile], object], device: torch.device) -> ConvTile:
    """The tile with which `run` takes least time, the first of those that tie.

    Raises the last error if all of them fail.
    """
    tiles = list(tiles)
    if device.type == "cuda":
        _compile(tiles, run, device)
    best: tuple[float, ConvTile] | None = None
    error: Exception | None = None
    for tile in tiles:
        try:
            seconds = _seconds(partial(run, tile), device)
        except Exception as failed:  # out of resources, or a compiler's failure
            error = failed
            logger.debug("tile %s is passed over: %s", tile, failed)
            continue
        if best is None or seconds < best[0]:
            best = (seconds, tile)
    if best is None:
        raise error or ValueError("no tile to choose from")
    return best[1]


def largest_power(size: int, limit: int) -> int:
    """The largest power of two up to `limit` that divides `size`."""
    return min(size & -size, limit)


def _compile(tiles: Sequence[ConvTile], run: Callable[[ConvTile], object], device: torch.device) -> None:
    """Runs each once, side by side: a compiler takes about a second for each and leaves Python alone."""
    stream = torch.cuda.current_stream(device)

    def one(tile: ConvTile) -> None:
        # of the thread that asks, not of this one; in its stream, so that it finds the results in order
        with torch.inference_mode(), torch.cuda.device(device), torch.cuda.stream(stream):
            try:
                run(tile)
            except Exception as error:  # it fails once more where it is timed
                logger.debug("tile %s: %s", tile, error)

    with ThreadPoolExecutor(len(tiles)) as pool:
        list(pool.map(one, tiles))


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    """The least of some rounds, after one that warms."""
    run()
    return min(seconds_of(run, device) for _ in range(ROUNDS))


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """One call's time, by the device's own clock where it has one."""
    if device.type == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
