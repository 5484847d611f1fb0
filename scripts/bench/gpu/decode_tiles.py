"""Times the fast decoder's convolutions in every tile.

Run it as `python -m scripts.bench.gpu.decode_tiles --side 512 --count 4`.

For each of the convolutions that Stable Diffusion's VAE decoder consists of: milliseconds and TFLOP/s by
cuDNN (channels_last, its own choice) and by each tile in half precision and in 8 bits. Needs a GPU of compute
capability 9.0 or more. The fastest belong into `encoder_worker/fast/tiles.py`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoder_worker.fast.convolutions import Convolutions
from encoder_worker.fast.layout import FLOAT8, Features, Plane, pack, pack_doubling
from encoder_worker.fast.tiles import ConvTile
from protocol.process.logs import first_line
from scripts.bench.common.tools import machine

GROUPS = 32
#: (inputs, outputs, picture side over latent side, doubled): everything but the narrow ends.
CONVOLUTIONS = (
    (512, 512, 1, False), (512, 512, 2, False), (512, 512, 1, True), (512, 512, 2, True),
    (256, 256, 4, False), (256, 256, 4, True), (128, 128, 8, False), (256, 128, 8, False),
)  # fmt: skip


@dataclass(frozen=True)
class ConvCase:
    """A convolution in some tile."""

    inputs: int
    outputs: int
    side: int
    doubled: bool
    eight_bit: bool
    tile: ConvTile

    def flop(self, count: int) -> float:
        """Operations that are done: a doubling does 4/9 of the plain way's."""
        return 2.0 * self.inputs * self.outputs * (16 if self.doubled else 9) * count * self.side**2


def tiles(eight_bit: bool) -> Iterator[ConvTile]:
    """All worth a try."""
    depths = (128,) if eight_bit else (32, 64)
    for (rows, columns, warps), depth, stages in itertools.product(
        ((256, 128, 8), (128, 256, 8), (128, 128, 4), (128, 128, 8), (64, 256, 4)), depths, (2, 3, 4)
    ):
        yield ConvTile(rows, columns, depth, stages, warps)


def cases(latent: int) -> Iterator[ConvCase]:
    for inputs, outputs, factor, doubled in CONVOLUTIONS:
        for eight_bit in (False,) if doubled else (False, True):
            for tile in tiles(eight_bit):
                if tile.columns <= outputs:
                    yield ConvCase(inputs, outputs, factor * latent, doubled, eight_bit, tile)


class Launcher:
    """Runs a case with the decoder's own code, on tensors shared by all cases of a convolution."""

    def __init__(self, count: int, device: torch.device) -> None:
        self.count, self.device = count, device
        bad = torch.zeros(1, dtype=torch.int32, device=device)
        self._convolve = Convolutions(device, GROUPS, bad, timing=False)
        self._of: tuple[object, ...] = ()

    def __call__(self, case: ConvCase) -> None:
        self._prepare(case)
        self._convolve.launch(
            case.tile, self._x, self._weights, self._out, True, self._residual, self._out_plane
        )

    def _prepare(self, case: ConvCase) -> None:
        of = (case.inputs, case.outputs, case.side, case.doubled, case.eight_bit)
        if of == self._of:
            return
        conv = nn.Conv2d(case.inputs, case.outputs, 3, padding=1, device=self.device)
        plane = Plane(self.count, case.side, case.side)
        x = torch.randn(plane.rows, case.inputs, device=self.device).half()
        plane.clear_border(x)
        self._x = Features(plane, (8 * x).to(FLOAT8) if case.eight_bit else x)
        self._out_plane = plane.doubled if case.doubled else plane
        self._out = torch.empty(self._out_plane.rows, case.outputs, dtype=torch.float16, device=self.device)
        self._residual = None if case.doubled else torch.zeros_like(self._out)
        if case.doubled:
            self._weights = pack_doubling(conv, torch.float16)
        else:
            self._weights = pack(conv, torch.float16, eight_bit=case.eight_bit)
        self._of = of


def cudnn(case: ConvCase, count: int, device: torch.device) -> Callable[[], Tensor]:
    """The same convolution by cuDNN, after a doubling by torch where there is one."""
    conv = nn.Conv2d(case.inputs, case.outputs, 3, padding=1, device=device).half()
    # torch's annotation of `to` knows `memory_format` only together with a tensor.
    conv = conv.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = torch.randn(count, case.inputs, case.side, case.side, device=device).half()
    x = x.contiguous(memory_format=torch.channels_last)
    return lambda: conv(F.interpolate(x, scale_factor=2.0) if case.doubled else x)


def milliseconds(run: Callable[[], object], rounds: int = 9) -> float:
    """Median, by the device's clock."""
    for _ in range(2):
        run()
    pairs = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(rounds)]
    for begin, end in pairs:
        begin.record()
        run()
        end.record()
    torch.cuda.synchronize()
    times: list[float] = sorted(begin.elapsed_time(end) for begin, end in pairs)
    return times[rounds // 2]


def compiled(every: Sequence[ConvCase], device: torch.device) -> dict[ConvCase, str]:
    """Compiles everything at once, since compilers wait for each other's programs. Returns the failures."""

    def one(case: ConvCase) -> str:
        try:
            Launcher(1, device)(case)
        except Exception as error:
            return first_line(error)[:90]
        return ""

    begin = time.monotonic()
    with ThreadPoolExecutor(12) as pool:
        reasons = dict(zip(every, pool.map(one, every), strict=True))
    torch.cuda.synchronize()
    print(f"{len(every)} tiles compiled in {time.monotonic() - begin:.1f} s", flush=True)
    return reasons


@torch.inference_mode()
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts.bench.gpu.decode_tiles",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--side", type=int, default=512, help="side of the pictures")
    parser.add_argument("--count", type=int, default=4, help="frames at once")
    args = parser.parse_args(argv)
    print(f"{machine()}; {time.strftime('%Y-%m-%d')}; {args.side}², {args.count} frames", flush=True)
    if not torch.cuda.is_available() or torch.cuda.get_device_capability() < (9, 0):
        print("the fast decoder needs a GPU of compute capability 9.0 or more")
        return 0
    device = torch.device("cuda", torch.cuda.current_device())
    every = list(cases(args.side // 8))
    reasons = compiled(every, device)
    launch = Launcher(args.count, device)
    for of, group in itertools.groupby(every, lambda c: (c.inputs, c.outputs, c.side, c.doubled)):
        print(f"{of[0]} → {of[1]} at {of[2]}²" + (", doubled" if of[3] else ""))
        members = list(group)
        with torch.backends.cudnn.flags(enabled=True, benchmark=True):
            taken = milliseconds(cudnn(members[0], args.count, device))
        print(f"    cuDNN{'':<31}{taken:>8.3f} ms{members[0].flop(args.count) / taken / 1e9:>8.0f} TFLOP/s")
        for case in members:
            tile = case.tile
            name = f"{'8-bit' if case.eight_bit else 'half '} {tile.rows}×{tile.columns}×{tile.depth}"
            name += f", {tile.stages} stages, {tile.warps} warps"
            if reasons[case]:
                print(f"    {name:<36} {reasons[case]}")
                continue
            taken = milliseconds(partial(launch, case))
            print(
                f"    {name:<36}{taken:>8.3f} ms{case.flop(args.count) / taken / 1e9:>8.0f} TFLOP/s",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
