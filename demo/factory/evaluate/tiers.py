"""Measure the cost in quality of each approximation of the fast tier.

Run it as `python -m demo.factory.evaluate.tiers [--quick]`.

The bundled model plays held-out sessions through the streaming path, in float32 on the CPU: with each
approximation by itself, with all together, and with fewer steps for comparison. Each run's clips start from
their own predecessors, as live. A row has:

- relative error and cosine of all latents against the exact run's
- the pictures' PSNR against the exact run's and against the drawn truth
- how well the mouth's opening follows the truth's
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from demo.factory.evaluate.bench import Bench
from demo.factory.evaluate.command import make_bench, parse
from demo.factory.evaluate.material import Scene
from demo.factory.evaluate.path import Picture, StreamingPath
from demo.factory.evaluate.scores import correlation, psnr
from gpu_worker.denoiser.model import ReferenceCache
from gpu_worker.engine.compiled import ClipSampler
from gpu_worker.engine.parts import PreparedClip
from gpu_worker.engine.serve import DenoiserEngine
from gpu_worker.fast import TIERS, FastDenoiser, Tier
from gpu_worker.fast.ops import TorchOps
from gpu_worker.fast.weights import SpareColumn

ODD, LATE = frozenset({1, 3, 5}), frozenset({3, 5})
TRIALS = [
    Tier("exact", "exact"),
    Tier("fp8", "float8 linear layers", fp8=True),
    Tier("frame", "the frame's keys merged 2×2", merge_frame=True),
    Tier("reuse", "self-attention reused at steps 2, 4, 6", reuse_attention=ODD),
    Tier("shallow", "highest level alone at steps 2, 4, 6", shallow=ODD),
    Tier("late", "both of these at steps 4 and 6 alone", reuse_attention=LATE, shallow=LATE),
    Tier("first", "self-attention reused at step 2 alone", reuse_attention=frozenset({1})),
    replace(TIERS["fast"], text="fast tier"),
]


@dataclass
class Outcome:
    """The result of a run: pictures by scene, and every clip's latents."""

    pictures: list[Picture]
    latents: np.ndarray[Any, Any]


class RecordingSampler(ClipSampler):
    """Samples with a tier, or as the worker does for None, and keeps all latents."""

    def __init__(self, engine: DenoiserEngine, tier: Tier | None) -> None:
        plain = engine.model.denoiser
        super().__init__(engine.settings, plain)
        self._tiered = None if tier is None else FastDenoiser(
            plain.models, steps=engine.settings.steps, guidance_scale=engine.settings.cfg, tier=tier,
            ops=TorchOps(SpareColumn()),
        )  # fmt: skip
        self.latents: list[np.ndarray[Any, Any]] = []

    def sample(self, prepared: PreparedClip, reference: ReferenceCache, before: Tensor | None) -> Tensor:
        if self._tiered is None:
            made = super().sample(prepared, reference, before)
        else:
            latents, start = self.state.start(self._tiered.steps, prepared.noise, before)
            self._tiered.prepare(latents, prepared.tokens, prepared.pose, reference)
            made = self._tiered.sample(latents, prepared.tokens, prepared.pose, reference, start)
        self.latents.append(made.numpy().astype(np.float64).ravel())
        return made


def run(bench: Bench, scenes: Sequence[Scene], tier: Tier | None) -> Outcome:
    """Play the scenes with a tier, or as the worker does for None."""
    engine = bench.path.engine
    bench.path.name_sessions_anew()  # so that all runs have the same noise
    recording, served = RecordingSampler(engine, tier), engine.sampler
    engine.sampler = recording
    try:
        pictures = [bench.pictures(scene) for scene in scenes]
    finally:
        engine.sampler = served
    return Outcome(pictures, np.concatenate(recording.latents))


def line(bench: Bench, scenes: Sequence[Scene], name: str, made: Outcome, exact: Outcome) -> str:
    a, b = made.latents, exact.latents
    error = np.linalg.norm(a - b) / np.linalg.norm(b)
    cosine = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
    squares = [
        np.square((x.astype(np.float32) - y.astype(np.float32)) / 255).mean((1, 2, 3))
        for x, y in zip(made.pictures, exact.pictures, strict=True)
    ]
    alike = float(psnr(np.concatenate(squares).mean()[None])[0])
    scores = [bench.judged(scene, pictures) for scene, pictures in zip(scenes, made.pictures, strict=True)]
    truth = np.mean([psnr(s.error).mean() for s in scores])
    mouth = np.mean([correlation(s.opening, s.true_opening) for s in scores])
    return f"| {name} | {error:.2e} | {cosine:.6f} | {alike:.1f} | {truth:.2f} | {mouth:.3f} |"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m demo.factory.evaluate.tiers", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--steps", type=int, default=6, help="denoising steps (default %(default)s)")
    parser.add_argument("--scenes", type=int, default=2, help="identities that speak")
    parser.add_argument("--seconds", type=float, default=4.0, help="speech of each")
    parser.add_argument("--only", default="", help=f"of {', '.join(tier.name for tier in TRIALS)}")
    parser.add_argument("--quick", action="store_true", help="two seconds of one identity, two rows")
    args = parser.parse_args(argv)
    if args.quick:
        args.scenes, args.seconds, args.only = 1, 2.0, args.only or "fast"
    trials = [t for t in TRIALS if not args.only or t.name in args.only.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        words = ["--steps", str(args.steps), "--device", "cpu", "--identities", str(args.scenes)]
        bench = make_bench(parse(words), Path(folder))
        settings = replace(bench.path.settings, dtype="float32", cpu_engine="torch")
        bench.path = StreamingPath(settings)
        scenes = bench.material.scenes(args.scenes, args.seconds, seed=77)
        exact = run(bench, scenes, None)
        print("| | error | cosine | to exact, dB | to truth, dB | mouth |\n|---|---|---|---|---|---|")
        print(line(bench, scenes, f"faithful, {args.steps} steps", exact, exact), flush=True)
        for tier in trials:
            print(line(bench, scenes, tier.text, run(bench, scenes, tier), exact), flush=True)
        for steps in () if args.only else range(args.steps - 1, max(0, args.steps - 4), -1):
            bench.path = StreamingPath(replace(settings, steps=steps))
            print(line(bench, scenes, f"exact, {steps} steps", run(bench, scenes, None), exact), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
