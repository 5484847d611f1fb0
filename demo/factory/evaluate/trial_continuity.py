"""Measure --session-state: `python -m demo.factory.evaluate.continuity [--steps 1,6] [--quick]`.

The bundled model plays held-out sessions through the streaming path, once for each engine, number of steps,
length of a clip and way to keep a session's state. All get the same people, words and names of sessions.
Sizes 256 and 512 are those of the VAE's two heads. A row has

- PSNR of whole pictures and of the mouth's box against the drawn truth, and the mouth's correlation with it.
  At 512 every twelfth picture is compared, because drawing them is slow,
- the seam figure of the whole session, and that of the drawn truth, which has no clips (chance moves it where
  seams are few),
- the flicker of still parts: the mean change from frame to frame, in grey levels of 255, of pixels that the
  truth moves by less than one (background, clothes),
- the denoiser's time a second of speech: on a CPU that of all threads together.

`--pixels held,clip,free` has rows as served, with still pixels held within each clip alone (as where an
encoder does not have the clip before), and as decoded. Without eight bits in the decoder all are the same.

All but the seam figure is of each session's first `--compared` seconds, because drawing takes time.
The first rows have no denoiser: the drawn truth, the truth as JPEG, and the truth after VAE and JPEG, which
no denoiser can be below.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field, replace
from itertools import product
from math import isnan
from pathlib import Path

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray

from demo.factory.evaluate.bench import Bench
from demo.factory.evaluate.command import make_bench, parse
from demo.factory.evaluate.judge import Judge
from demo.factory.evaluate.material import Scene
from demo.factory.evaluate.path import Picture, StreamingPath
from demo.factory.evaluate.scores import correlation, psnr, seam_figure
from demo.factory.figure.measure import crop_mouth, mouth_box
from gpu_worker.engine.session_state import NEW_NOISE, SEED_MIX, SESSION_NOISE, ZERO_NOISE
from protocol.process.settings import Settings
from protocol.wire.messages import Array16

WAYS = (SEED_MIX, NEW_NOISE, SESSION_NOISE, ZERO_NOISE)
ENGINES = Settings.__dataclass_fields__["cpu_engine"].metadata["choices"]
#: Mean change a frame, in grey levels of 255, below which the truth counts as still.
STILL = 1.0
#: Pictures that are drawn and compared at a time.
CHUNK = 12
#: Sides of the pictures, by whether the finer head draws them.
SIZES = {256: False, 512: True}
#: How still pixels are held: from clip to clip as served, within each clip alone, or not.
HELD, WITHIN_CLIPS, FREE = PIXELS = "held", "clip", "free"
HEADS = ("engine", "size", "steps", "clip", "late", "way", "truth dB", "mouth dB", "mouth", "seam", "drawn",
         "still", "clip s")  # fmt: skip


@dataclass(frozen=True)
class SessionVariant:
    """One way to make a session: the words of a row."""

    engine: str
    steps: int
    clip_frames: int
    late: int
    way: str


@dataclass(frozen=True, eq=False)
class Played:
    """The sessions of one variant.

    Attributes:
        variant: how they were made.
        path: decodes them.
        latents: (frames, C, h, w) by scene.
        seconds: of the denoiser, a second of speech.
    """

    variant: SessionVariant
    path: StreamingPath
    latents: list[Array16]
    seconds: float


#: Of a row: the side of its pictures, the number of its variant from 1 on (0: the truth after VAE and JPEG),
#: and how still pixels are held.
RowKey = tuple[int, int, str]


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
        by_pixel = np.asarray(self.by_pixel)
        times = by_pixel.shape[0] // pixels.shape[0]  # larger pictures have the same still parts
        return float(by_pixel[pixels.repeat(times, 0).repeat(times, 1)].mean() / sum(map(len, self.whole)))


@dataclass
class SceneFigures:
    """A row's figures of one scene, as they are gathered.

    Attributes:
        session: changes of the whole session.
        changes: those of its part that is compared with the truth.
        error: squared errors of pictures in 0..1.
        mouth_error: those of the mouth's box.
        opening: readings of the mouth.
    """

    session: Changes = field(default_factory=Changes)
    changes: Changes = field(default_factory=Changes)
    error: list[float] = field(default_factory=list)
    mouth_error: list[float] = field(default_factory=list)
    opening: list[float] = field(default_factory=list)


def still_pixels(truth: Changes) -> NDArray[np.bool_]:
    """The pixels (H, W) of still parts."""
    share: NDArray[np.bool_] = np.asarray(truth.by_pixel) / sum(map(len, truth.whole)) < STILL
    return share


class Comparison:
    """Compares all variants with the truth, which is drawn once for all of them.

    Args:
        bench: its path decodes the truth's own latents.
        played: the variants.
        sizes: sides of the pictures, of `SIZES`.
        compared: frames of each session that are compared with the truth.
        pixels: how still pixels are held, of `PIXELS`. Each has its rows.
    """

    def __init__(
        self,
        bench: Bench,
        played: Sequence[Played],
        sizes: Sequence[int],
        compared: int,
        pixels: Sequence[str] = (HELD,),
    ) -> None:
        self._bench, self._played, self._sizes, self._compared = bench, played, sizes, compared
        self._pixels = pixels
        material = bench.material
        self._judges = {
            size: Judge(material, bench.fps, material.renderer_of(size)) if SIZES[size] else bench.judge
            for size in sizes
        }

    def rows(self, scenes: Sequence[Scene]) -> Iterator[str]:
        """The table's rows in Markdown: means over the scenes."""
        figures: dict[tuple[str, ...], list[tuple[float, ...]]] = {}
        for number, scene in enumerate(scenes):
            for words, row in self._of_scene(number, scene).items():
                figures.setdefault(words, []).append(row)
        for words, values in figures.items():
            means = np.mean(np.array(values), axis=0).tolist()
            digits = (2, 2, 4, 3, 3, 3, 3)
            shown = ["" if isnan(v) else f"{v:.{n}f}" for v, n in zip(means, digits, strict=True)]
            yield "| " + " | ".join([*words, *shown]) + " |"

    def _of_scene(self, number: int, scene: Scene) -> dict[tuple[str, ...], tuple[float, ...]]:
        bench, frames = self._bench, min(self._compared, len(self._played[0].latents[number]))
        seen: dict[RowKey, SceneFigures] = {}
        drawn, as_jpeg, opening = Changes(), Changes(), []
        for first in range(0, frames, CHUNK):
            truth, state = bench.judge.truth(scene, first, min(CHUNK, frames - first))
            pictures = truth.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
            drawn.add(pictures)
            as_jpeg.add(np.stack([bench.path.through_jpeg(picture) for picture in pictures]))
            opening += bench.judge.opening(scene, truth, state).tolist()
            for size in self._sizes:
                sources = [bench.path.encode(pictures)]
                sources += [played.latents[number][first : first + CHUNK] for played in self._played]
                for row in product([size], range(len(sources)), self._pixels):
                    made = self._made(row, number, first, sources[row[1]])
                    self._look(seen.setdefault(row, SceneFigures()), size, scene, first, made)
        self._play_on(number, seen, frames)
        return self._figures(seen, drawn, as_jpeg, np.array(opening))

    def _made(self, row: RowKey, number: int, first: int, latents: Array16) -> Picture:
        """The pictures of a chunk of a scene that starts at frame `first`, which follows the chunk before."""
        size, index, pixels = row
        played = self._played[index - 1] if index else None
        path = played.path if played else self._bench.path
        frames = played.variant.clip_frames if played and pixels == WITHIN_CLIPS else CHUNK
        made = []
        for start in range(0, len(latents), frames):
            # Numbers with gaps: no clip is right after another.
            place = f"{row} {number}", 0, (first + start) // (CHUNK if pixels == HELD else 1)
            clip = None if pixels == FREE else place
            made.append(path.pictures(latents[start : start + frames], fine=SIZES[size], clip=clip))
        return np.concatenate(made)

    def _play_on(self, number: int, seen: dict[RowKey, SceneFigures], first: int) -> None:
        """Take the rest of a session, for the seam figure alone."""
        for row, its in seen.items():
            if row[1] == 0:
                continue
            latents = self._played[row[1] - 1].latents[number]
            for start in range(first, len(latents), CHUNK):
                its.session.add(self._made(row, number, start, latents[start : start + CHUNK]))

    def _look(self, seen: SceneFigures, size: int, scene: Scene, first: int, made: Picture) -> None:
        """Take a chunk of one row's pictures."""
        judge = self._judges[size]
        seen.changes.add(made)
        seen.session.add(made)
        state = self._bench.material.states(scene, first, len(made), self._bench.fps)
        # The meter learns each person from many drawings, so larger pictures are read at the usual size.
        usual = F.adaptive_avg_pool2d(judge.tensor(made), self._bench.judge.renderer.size)
        seen.opening += self._bench.judge.opening(scene, usual, state).tolist()
        count = 1 if SIZES[size] else len(made)
        truth, its = judge.truth(scene, first, count)
        boxes, shown = mouth_box(judge.renderer, its), judge.tensor(made[:count])
        seen.error += (shown - truth).square().mean((1, 2, 3)).tolist()
        mouths = crop_mouth(shown, boxes) - crop_mouth(truth, boxes)
        seen.mouth_error += mouths.square().mean((1, 2, 3)).tolist()

    def _figures(
        self,
        seen: dict[RowKey, SceneFigures],
        drawn: Changes,
        as_jpeg: Changes,
        opening: NDArray[np.float64],
    ) -> dict[tuple[str, ...], tuple[float, ...]]:
        """The figures of a scene, by the words of their rows."""
        still, nothing = still_pixels(drawn), float("nan")
        rows: dict[tuple[str, ...], tuple[float, ...]] = {}
        for name, changes in (("drawn", drawn), ("drawn, JPEG", as_jpeg)):
            words = "", str(self._bench.judge.renderer.size), "", "12", "", name
            figures = changes.seam(CHUNK), drawn.seam(CHUNK), changes.of(still)
            rows[words] = nothing, nothing, nothing, *figures, nothing
        for (size, index, pixels), its in seen.items():
            played = self._played[index - 1] if index else None
            variant = played.variant if played else SessionVariant("", 0, 12, 0, "drawn, VAE, JPEG")
            engine, *numbers, way = map(str, astuple(variant))
            way += "" if pixels == HELD else f", {pixels}"
            words = engine, str(size), *(numbers if played else ("", "12", "")), way
            rows[words] = (
                float(psnr(np.array(its.error)).mean()), float(psnr(np.array(its.mouth_error)).mean()),
                correlation(np.array(its.opening), opening), its.session.seam(variant.clip_frames),
                drawn.seam(variant.clip_frames), its.changes.of(still), played.seconds if played else nothing,
            )  # fmt: skip
        return rows


def play(path: StreamingPath, bench: Bench, scenes: Sequence[Scene], variant: SessionVariant) -> Played:
    """Play the scenes with one way to keep a session's state."""
    sampler = path.engine.sampler
    sampler.state = replace(sampler.state, way=variant.way, late_start=variant.late)
    path.name_sessions_anew()  # so that all ways have the same people and names
    path.seconds.clear()
    latents = []
    for scene in scenes:
        clips = path.latents(bench.material.names[scene.identity], scene.pose, scene.speech.samples)
        latents.append(np.concatenate([clip.latents for clip in clips]))
    spoken = sum(scene.speech.seconds for scene in scenes)
    return Played(variant, path, latents, path.seconds["denoise"] / spoken)


def play_all(bench: Bench, scenes: Sequence[Scene], args: argparse.Namespace) -> Iterator[Played]:
    """Play all variants. One path of each engine decodes."""
    for engine in args.cpu_engine.split(","):
        settings, decodes = replace(bench.path.settings, cpu_engine=engine), None
        for steps in args.steps:
            for frames in args.clip_frames:
                path = StreamingPath(replace(settings, steps=steps, clip_frames=frames))
                # The first one has timed which arithmetic is the fastest here.
                settings = replace(settings, dtype=str(path.info()["dtype"]))
                decodes = decodes or path
                facts = path.info()
                print(f"{engine}, {steps} steps: {facts['device']}, {facts['decoder']}", flush=True)
                for late in (late for late in args.late_start if late < steps):
                    for way in args.ways.split(","):
                        made = play(path, bench, scenes, SessionVariant(engine, steps, frames, late, way))
                        yield replace(made, path=decodes)


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
    made.add_argument("--sizes", type=numbers, default=(256,), help="sides of the pictures (default 256)")
    made.add_argument("--pixels", default=HELD, help=f"of {', '.join(PIXELS)} (default {HELD})")
    made.add_argument("--cpu-engine", default="auto", help=f"of {', '.join(ENGINES)} (default auto)")
    made.add_argument("--scenes", type=int, default=3, help="identities that speak")
    made.add_argument("--seconds", type=float, default=4.0, help="speech of each")
    made.add_argument("--compared", type=float, default=10.0, help="seconds compared with the truth")
    made.add_argument("--quick", action="store_true", help="a second of one identity")
    made.add_argument("--device", default="auto", help="of denoiser and decoder")
    made.add_argument("--figure", help="file of identities (default: that of the evaluation)")
    made.add_argument("--speech", help="file of speech (default: that of the evaluation)")
    return made


def numbers(text: str) -> tuple[int, ...]:
    """Whole numbers between commas."""
    return tuple(int(word) for word in text.split(","))


def _checked(argv: Sequence[str] | None) -> argparse.Namespace:
    args = parser().parse_args(argv)
    if args.quick:
        args.scenes, args.seconds = 1, 1.0
    for flag, given, known in (
        ("--ways", args.ways.split(","), WAYS),
        ("--cpu-engine", args.cpu_engine.split(","), ENGINES),
        ("--sizes", args.sizes, SIZES),
        ("--pixels", args.pixels.split(","), PIXELS),
    ):
        unknown = sorted(set(given) - set(known))
        if unknown:
            parser().error(f"{flag} {unknown[0]}: there are {', '.join(map(str, known))}")
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    args = _checked(argv)
    with tempfile.TemporaryDirectory() as folder:
        words = ["--steps", str(args.steps[0]), "--device", args.device, "--identities", str(args.scenes)]
        words += ["--cpu-engine", args.cpu_engine.split(",")[0]]
        for flag in ("figure", "speech"):
            if getattr(args, flag):
                words += [f"--{flag}", getattr(args, flag)]
        bench = make_bench(parse(words), Path(folder))
        scenes = bench.material.scenes(args.scenes, args.seconds, seed=77)
        print(f"{args.scenes} sessions of {args.seconds:g} s", flush=True)
        played = list(play_all(bench, scenes, args))
        print(f"| {' | '.join(HEADS)} |\n{'|---' * len(HEADS)}|", flush=True)
        compared = round(args.compared * bench.fps)
        comparison = Comparison(bench, played, args.sizes, compared, args.pixels.split(","))
        for row in comparison.rows(scenes):
            print(row, flush=True)
    return 0
