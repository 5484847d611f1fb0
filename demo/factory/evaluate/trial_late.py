"""Measure --late-start: `python -m demo.factory.evaluate.late_start [--steps 6] [--quick]`.

The bundled model plays held-out sessions through the streaming path with every possible late start. A row has
the pictures' PSNR against those of a start at step 0, the seam figure, and the denoiser's time a clip. On a
CPU that is the time of all threads together. With --truth a row also has PSNR and mouth correlation against
the drawn truth, which takes longer.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from demo.factory.evaluate.bench import Bench
from demo.factory.evaluate.command import make_bench, parse
from demo.factory.evaluate.judge import mean_change
from demo.factory.evaluate.material import Scene
from demo.factory.evaluate.path import Picture, StreamingPath
from demo.factory.evaluate.scores import correlation, psnr, seam_figure


@dataclass(frozen=True)
class LateStartRow:
    """One late start's figures: PSNR in dB, and seconds a clip as `StreamingPath` counts them."""

    late: int
    against_zero: float
    against_truth: float
    mouth: float
    seam: float
    seconds: float


def measure(
    bench: Bench, scenes: Sequence[Scene], late: int, zero: list[Picture] | None, *, truth: bool
) -> tuple[LateStartRow, list[Picture]]:
    """Play the scenes with this late start. `zero` has their pictures without one."""
    bench.path.seconds.clear()
    clips = bench.path.clips
    shown = [bench.pictures(scene) for scene in scenes]
    seconds = bench.path.seconds["denoise"] / max(1, bench.path.clips - clips)
    errors = [
        np.square((a.astype(np.float32) - b.astype(np.float32)) / 255).mean((1, 2, 3))
        for a, b in zip(shown, zero or shown, strict=True)
    ]
    scores = [bench.judged(*played) for played in zip(scenes, shown, strict=True)] if truth else []
    row = LateStartRow(
        late,
        float(psnr(np.concatenate(errors).mean()[None])[0]) if zero else float("inf"),
        float(np.mean([psnr(s.error).mean() for s in scores])) if truth else float("nan"),
        float(np.mean([correlation(s.opening, s.true_opening) for s in scores])) if truth else float("nan"),
        float(np.mean([seam_figure(mean_change(p, None), bench.path.clip_frames) for p in shown])),
        seconds,
    )
    return row, shown


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo.factory.evaluate.late_start", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=6, help="denoising steps (default %(default)s)")
    parser.add_argument("--scenes", type=int, default=3, help="identities that speak")
    parser.add_argument("--seconds", type=float, default=8.0, help="speech of each")
    parser.add_argument("--quick", action="store_true", help="a second of one identity")
    parser.add_argument("--truth", action="store_true", help="judge against the drawn truth as well")
    parser.add_argument("--device", default="auto", help="of denoiser and decoder")
    args = parser.parse_args(argv)
    if args.quick:
        args.scenes, args.seconds = 1, 1.0
    with tempfile.TemporaryDirectory() as folder:
        words = ["--steps", str(args.steps), "--device", args.device, "--identities", str(args.scenes)]
        bench = make_bench(parse(words), Path(folder))
        scenes = bench.material.scenes(args.scenes, args.seconds, seed=77)
        print(
            f"{args.steps} steps, {args.scenes} sessions of {args.seconds:g} s; {bench.path.info()['device']}"
        )
        heads = f"{'late start':<13}{'steps':>4}{'to step 0':>12}{'to truth':>11}{'mouth':>8}{'seam':>7}"
        print(f"  {heads}{'clip':>10}", flush=True)
        zero: list[Picture] | None = None
        # the first one has timed which arithmetic is the fastest here
        settings = replace(bench.path.settings, dtype=str(bench.path.info()["dtype"]))
        for late in range(args.steps):
            if late:
                bench.path = StreamingPath(replace(settings, late_start=late))
            row, shown = measure(bench, scenes, late, zero, truth=args.truth)
            zero = zero or shown
            print(
                f"  {late:<11}{args.steps - late:>6}{row.against_zero:>9.2f} dB{row.against_truth:>8.2f} dB"
                f"{row.mouth:>8.3f}{row.seam:>7.3f}{row.seconds:>8.3f} s",
                flush=True,
            )
    return 0
