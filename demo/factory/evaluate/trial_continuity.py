"""Measure --session-state: `python -m demo.factory.evaluate.continuity [--steps 1,6] [--quick]`.

The bundled model plays held-out sessions through the streaming path, once for each number of steps, each
length of a clip and each way to keep a session's state. All ways get the same people, words and names of
sessions. A row has

- PSNR of whole pictures and of the mouth's box against the drawn truth, and the mouth's correlation with it,
- the seam figure, and that of the drawn truth, which has no clips (chance moves it where seams are few),
- the flicker of still parts: the mean change from frame to frame, in grey levels of 255, of pixels that the
  truth moves by less than one (background, clothes). The line above the table has the truth's own, and that
  of the truth after VAE and JPEG, which no denoiser can be below,
- the denoiser's time a second of speech: on a CPU that of all threads together.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.factory.evaluate.bench import Bench
from demo.factory.evaluate.command import make_bench, parse
from demo.factory.evaluate.judge import Scores
from demo.factory.evaluate.material import Scene
from demo.factory.evaluate.path import Picture, StreamingPath
from demo.factory.evaluate.scores import correlation, psnr, seam_figure
from gpu_worker.engine.session_state import NEW_NOISE, SEED_MIX, SESSION_NOISE

WAYS = (SEED_MIX, NEW_NOISE, SESSION_NOISE)
#: Mean change a frame, in grey levels of 255, below which the truth counts as still.
STILL = 1.0
HEADS = ("steps", "clip", "late", "way", "truth dB", "mouth dB", "mouth", "seam", "drawn", "still", "clip s")


@dataclass(frozen=True)
class Continuity:
    """Figures of one way, of a scene or means over scenes. The module's docstring says what they are."""

    psnr: float
    mouth_psnr: float
    mouth: float
    seam: float
    drawn_seam: float
    still: float
    seconds: float


class Changes:
    """Changes from each picture of a session to the next: of the whole, and of each pixel on average."""

    def __init__(self) -> None:
        self.whole: list[NDArray[np.float64]] = []
        self.by_pixel: NDArray[np.float64] | float = 0.0
        self._before: Picture | None = None

    def add(self, pictures: Picture) -> None:
        """Take the pictures, uint8 (n, H, W, 3), that follow the ones before."""
        every = pictures if self._before is None else np.concatenate((self._before[None], pictures))
        moved = np.abs(every[1:].astype(np.int16) - every[:-1].astype(np.int16)).mean(3, dtype=np.float64)
        self.whole.append(moved.mean((1, 2)))
        self.by_pixel = self.by_pixel + moved.sum(0)
        self._before = pictures[-1]

    def seam(self, clip_frames: int) -> float:
        """The seam figure of all that was added."""
        return seam_figure(np.concatenate(self.whole), clip_frames)

    def of(self, pixels: NDArray[np.bool_]) -> float:
        """Mean change a frame of these pixels (H, W), in grey levels."""
        return float(np.asarray(self.by_pixel)[pixels].mean() / sum(map(len, self.whole)))


def drawn(bench: Bench, scene: Scene, frames: int) -> Iterator[Picture]:
    """The truth's pictures, uint8 (n, H, W, 3), a few at a time."""
    for first in range(0, frames, 12):
        truth, _ = bench.judge.truth(scene, first, min(12, frames - first))
        yield truth.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def still_pixels(truth: Changes) -> NDArray[np.bool_]:
    """The pixels (H, W) of still parts."""
    share: NDArray[np.bool_] = np.asarray(truth.by_pixel) / sum(map(len, truth.whole)) < STILL
    return share


def measure(bench: Bench, scenes: Sequence[Scene], way: str, late: int) -> Continuity:
    """Play the scenes with one way to keep a session's state."""
    path = bench.path
    sampler = path.engine.sampler
    sampler.state = replace(sampler.state, way=way, late_start=late)
    path.name_sessions_anew()  # so that all ways have the same people and names
    path.seconds.clear()
    rows = [astuple(_of_scene(bench, scene)) for scene in scenes]
    spoken = sum(scene.speech.seconds for scene in scenes)
    means = Continuity(*np.mean(np.array(rows), axis=0).tolist())
    return replace(means, seconds=path.seconds["denoise"] / spoken)


def _of_scene(bench: Bench, scene: Scene) -> Continuity:
    made, truth = Changes(), Changes()
    parts: list[Scores] = []
    frames = 0
    for clip in bench.play(scene):
        assert clip.pictures is not None
        parts.append(bench.judge.score(scene, clip.first, clip.pictures))
        made.add(clip.pictures)
        frames += clip.count
    for pictures in drawn(bench, scene, frames):
        truth.add(pictures)
    scores, still = Scores.cat(parts), still_pixels(truth)
    count = bench.path.clip_frames
    return Continuity(
        float(psnr(scores.error).mean()),
        float(psnr(scores.mouth_error).mean()),
        correlation(scores.opening, scores.true_opening),
        made.seam(count),
        truth.seam(count),
        made.of(still),
        seconds=0.0,
    )


def flicker_of_truth(bench: Bench, scenes: Sequence[Scene]) -> tuple[float, float, float]:
    """Changes of still parts in a second of the truth: as drawn, after JPEG, after VAE and JPEG."""
    changes = []
    for scene in scenes:
        truth, jpeg, both = Changes(), Changes(), Changes()
        for pictures in drawn(bench, scene, 24):
            truth.add(pictures)
            jpeg.add(np.stack([bench.path.through_jpeg(picture) for picture in pictures]))
            both.add(np.stack([bench.path.through_vae(picture) for picture in pictures]))
        still = still_pixels(truth)
        changes.append([ways.of(still) for ways in (truth, jpeg, both)])
    as_drawn, after_jpeg, after_both = np.mean(changes, axis=0).tolist()
    return as_drawn, after_jpeg, after_both


def line(steps: int, frames: int, late: int, way: str, row: Continuity) -> str:
    """A row of the table, in Markdown."""
    digits = (2, 2, 4, 3, 3, 3, 3)
    figures = [f"{value:.{n}f}" for value, n in zip(astuple(row), digits, strict=True)]
    return "| " + " | ".join([str(steps), str(frames), str(late), way, *figures]) + " |"


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    made = argparse.ArgumentParser(
        prog="python -m demo.factory.evaluate.continuity", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("--steps", type=numbers, default=(1, 6), help="denoising steps (default 1,6)")
    made.add_argument("--ways", default=",".join(WAYS), help="ways to keep a session's state (default all)")
    made.add_argument("--clip-frames", type=numbers, default=(12,), help="frames of a clip (default 12)")
    made.add_argument("--late-start", type=numbers, default=(0,), help="steps that are skipped (default 0)")
    made.add_argument("--scenes", type=int, default=3, help="identities that speak")
    made.add_argument("--seconds", type=float, default=4.0, help="speech of each")
    made.add_argument("--quick", action="store_true", help="a second of one identity")
    made.add_argument("--device", default="auto", help="of denoiser and decoder")
    return made


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers between commas."""
    return tuple(int(word) for word in text.split(","))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    args = parser().parse_args(argv)
    if args.quick:
        args.scenes, args.seconds = 1, 1.0
    unknown = set(args.ways.split(",")) - set(WAYS)
    if unknown:
        parser().error(f"--ways {min(unknown)}: there are {', '.join(WAYS)}")
    with tempfile.TemporaryDirectory() as folder:
        words = ["--steps", str(args.steps[0]), "--device", args.device, "--identities", str(args.scenes)]
        bench = make_bench(parse(words), Path(folder))
        scenes = bench.material.scenes(args.scenes, args.seconds, seed=77)
        print(f"{args.scenes} sessions of {args.seconds:g} s; {bench.path.info()['device']}")
        as_drawn, jpeg, both = flicker_of_truth(bench, scenes)
        print(f"still parts of the truth change by {as_drawn:.3f}, after JPEG by {jpeg:.3f},", end=" ")
        print(f"after VAE and JPEG by {both:.3f}", flush=True)
        print(f"| {' | '.join(HEADS)} |\n{'|---' * len(HEADS)}|", flush=True)
        # the first one has timed which arithmetic is the fastest here
        settings = replace(bench.path.settings, dtype=str(bench.path.info()["dtype"]))
        for steps in args.steps:
            for frames in args.clip_frames:
                if (steps, frames) != (args.steps[0], 12):
                    bench.path = StreamingPath(replace(settings, steps=steps, clip_frames=frames))
                for late in (late for late in args.late_start if late < steps):
                    for way in args.ways.split(","):
                        row = measure(bench, scenes, way, late)
                        print(line(steps, frames, late, way, row), flush=True)
    return 0
