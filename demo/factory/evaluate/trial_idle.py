"""Measure --silence: `python -m demo.factory.evaluate.idle [--steps 1,6] [--quick]`.

Held-out people say sentences with silences between them, through the streaming path, once with every clip
denoised and once with silent clips from the loop. A room's noise goes on throughout. A row has

- the seam figure where a silent clip follows a spoken one (in) and where it is followed by one (out): the
  change across that boundary over the mean change within the two clips,
- the seam figure of all other boundaries,
- the latest moment after a sentence at which the mouth is open, in seconds, and how many sentences have one
  later than 0.3 s,
- the mouth in the first 0.5 s of the sentences: the mean opening, which is less where the first syllable is
  clipped,
- the share of clips that were taken for silent, and how many of them hold sound of a sentence,
- the denoiser's processor time a second.

A second table plays noises alone, as loud as they are and as a browser's automatic gain makes them: the share
of clips that are taken for a voice, the share of frames in which the mouth is open, and the widest opening.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from demo.factory.evaluate.bench import Bench
from demo.factory.evaluate.command import make_bench, parse
from demo.factory.evaluate.material import STILL, Scene, Speech
from demo.factory.evaluate.noises import KINDS, automatic_gain, noise
from demo.factory.evaluate.path import Made, StreamingPath
from demo.factory.evaluate.scores import SHUT, Curve
from demo.factory.evaluate.trial_continuity import numbers
from demo.factory.evaluate.trial_silence import background
from demo.factory.motion.mouth import TRACK_RATE
from protocol.wire.clock import SAMPLE_RATE

WAYS = ("loop", "denoise")
LEVELS = (-50.0, -40.0, -30.0)
#: Seconds at a sentence's beginning in which its first syllable is.
BEGINNING = 0.5
#: Seconds after a sentence within which the mouth is to be shut.
SHUTS_WITHIN = 0.3
HEADS = ("steps", "silence", "in", "out", "others", "open after", "begin", "silent", "wrongly", "denoise s/s")

NOISE_HEADS = ("noise", "level", "automatic gain", "a voice", "mouth open", "widest")


@dataclass(frozen=True, eq=False)
class Talk:
    """A session's speech, with the first and the last second of each sentence."""

    scene: Scene
    sentences: list[tuple[float, float]]


def talk(bench: Bench, number: int, sentences: int, pause: float) -> Talk:
    """A person who says some sentences, with `pause` seconds of silence or a little more around each."""
    material = bench.material
    rng = np.random.default_rng(number)
    parts, mouths, spans, at = [np.zeros(0, np.float32)], [np.zeros((0, 6), np.float32)], [], 0.0
    for k in range(sentences):
        speech, end = material.sentence(material.voices[(number + k) % len(material.voices)], number + k)
        quiet = pause + rng.uniform(0, 0.5)  # at any place of a clip
        begin = float(np.argmax(np.abs(speech.samples) > 0.02)) / SAMPLE_RATE
        parts += [np.zeros(round(quiet * SAMPLE_RATE), np.float32), speech.samples]
        at = sum(map(len, parts[:-1])) / SAMPLE_RATE
        mouth = np.zeros((round(at * TRACK_RATE) - sum(map(len, mouths)), speech.mouth.shape[1]), np.float32)
        mouths += [mouth, speech.mouth[: round(len(speech.samples) / SAMPLE_RATE * TRACK_RATE)]]
        spans.append((at + begin, at + end))
    parts.append(np.zeros(round(pause * SAMPLE_RATE), np.float32))
    samples = np.concatenate(parts)
    samples = np.pad(samples, (0, -len(samples) % (SAMPLE_RATE // 2)))
    samples = samples + background("white noise −50 dBFS", len(samples), number)
    pose = material.poses[number % len(material.poses)]
    speech = Speech(samples, np.concatenate(mouths), np.empty((0, 2)), "several")
    return Talk(Scene(number % len(material.names), pose, speech), spans)


class Boundaries:
    """Changes across boundaries of clips over those within the clips on both sides, by kind."""

    def __init__(self) -> None:
        #: Changes across, and within.
        self.by_kind: dict[str, list[tuple[float, float]]] = {"in": [], "out": [], "others": []}

    def add(self, before: Made, after: Made, silent: tuple[bool, bool]) -> None:
        """Take the boundary between two clips. `silent`: whether each of them holds no voice."""
        assert before.pictures is not None and after.pictures is not None
        kind = "others" if silent[0] == silent[1] else "in" if silent[1] else "out"
        every = np.concatenate((before.pictures, after.pictures)).astype(np.int16)
        changes = np.abs(np.diff(every, axis=0)).mean((1, 2, 3))
        place = len(before.pictures) - 1
        self.by_kind[kind].append((float(changes[place]), float(np.delete(changes, place).mean())))

    def figure(self, kind: str) -> float:
        """The seam figure of a kind of boundary."""
        pairs = np.array(self.by_kind[kind] or [(np.nan, np.nan)])
        return float(pairs[:, 0].mean() / pairs[:, 1].mean())


def openings(bench: Bench, scene: Scene, clips: Sequence[Made]) -> Curve:
    """The mouth's opening in each frame."""
    parts = []
    for clip in clips:
        assert clip.pictures is not None
        state = bench.material.states(scene, clip.first, clip.count, bench.fps)
        parts.append(bench.judge.opening(scene, bench.judge.tensor(clip.pictures), state))
    return np.concatenate(parts)


def measure(bench: Bench, talks: Sequence[Talk], steps: int, way: str, heard: dict[Talk, list[bool]]) -> str:
    """Play the talks in one way. Returns a row of the table.

    Args:
        bench: its path has that way.
        talks: to play.
        steps: of the path.
        way: of the path.
        heard: whether each clip of a talk is silent. The loop's run, which comes first, fills it.
    """
    seams = Boundaries()
    after, begin = [], []
    silent = wrong = clips = 0
    bench.path.seconds.clear()
    for one in talks:
        made = list(bench.play(one.scene))
        if way == "loop":
            heard[one] = [clip.silent for clip in made]
        flags = heard.get(one) or [False] * len(made)
        for pair, silences in zip(pairwise(made), pairwise(flags), strict=True):
            seams.add(*pair, silences)
        opening = openings(bench, one.scene, made)
        seconds = np.arange(len(opening)) / bench.fps
        ends = [start for start, _ in one.sentences[1:]] + [seconds[-1]]
        for (start, stop), following in zip(one.sentences, ends, strict=True):
            open_at = seconds[(opening >= SHUT) & (seconds > stop) & (seconds < following - 0.1)]
            after.append(float(open_at.max() - stop) if len(open_at) else 0.0)
            begin.append(float(opening[(seconds >= start) & (seconds < start + BEGINNING)].mean()))
        silent += sum(clip.silent for clip in made)
        wrong += sum(clip.silent and _spoken(bench, one, clip) for clip in made)
        clips += len(made)
    spoken = sum(one.scene.speech.seconds for one in talks)
    figures = [
        *(f"{seams.figure(kind):.3f} of {len(seams.by_kind[kind])}" for kind in seams.by_kind),
        f"{max(after):.2f} s, {sum(one > SHUTS_WITHIN for one in after)} of {len(after)}",
        f"{np.mean(begin):.4f}", f"{silent / clips:.0%}", f"{wrong} of {clips}",
        f"{bench.path.seconds['denoise'] / spoken:.3f}",
    ]  # fmt: skip
    return "| " + " | ".join([str(steps), way, *figures]) + " |"


def _spoken(bench: Bench, one: Talk, clip: Made) -> bool:
    """Whether a clip holds more than 50 ms of a sentence."""
    first, last = clip.first / bench.fps, (clip.first + clip.count) / bench.fps
    return any(min(last, stop) - max(first, start) > 0.05 for start, stop in one.sentences)


def noise_rows(bench: Bench, seconds: float) -> Iterator[str]:
    """The second table."""
    for kind in KINDS:
        for level in LEVELS:
            for gained in (False, True):
                sound = noise(kind, seconds, level, 1)
                sound = automatic_gain(sound) if gained else sound
                speech = Speech(sound, np.zeros((1, 6), np.float32), np.empty((0, 2)), kind)
                scene = Scene(0, STILL, speech)
                made = list(bench.play(scene))
                opening = openings(bench, scene, made)
                voices = np.mean([not clip.silent for clip in made])
                loud = "yes" if gained else "no"
                yield (
                    f"| {kind} | {level:.0f} dBFS | {loud} | {voices:.0%} | {np.mean(opening >= SHUT):.1%} |"
                    f" {opening.max():.3f} |"
                )


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    made = argparse.ArgumentParser(
        prog="python -m demo.factory.evaluate.idle", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("--steps", type=numbers, default=(1, 6), help="denoising steps (default 1,6)")
    made.add_argument("--talks", type=int, default=6, help="people who talk (default 6)")
    made.add_argument("--sentences", type=int, default=4, help="sentences of each (default 4)")
    made.add_argument("--pause", type=float, default=2.5, help="seconds of silence between them")
    made.add_argument("--noise", type=float, default=10.0, help="seconds of each noise, 0 for none")
    made.add_argument("--ways", default=",".join(WAYS), help="of --silence (default both)")
    made.add_argument("--quick", action="store_true", help="one sentence, and a second of each noise")
    made.add_argument("--device", default="auto", help="of denoiser and decoder")
    made.add_argument("--clip-frames", type=int, default=4, help="frames of a clip (default 4)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    args = parser().parse_args(argv)
    if args.quick:
        args.talks, args.sentences, args.noise, args.steps = 1, 1, min(args.noise, 1.0), args.steps[:1]
    with tempfile.TemporaryDirectory() as folder:
        words = ["--steps", str(args.steps[0]), "--device", args.device, "--identities", str(args.talks)]
        words += ["--clip-frames", str(args.clip_frames)]
        bench = make_bench(parse(words), Path(folder))
        talks = [talk(bench, number, args.sentences, args.pause) for number in range(args.talks)]
        settings = replace(bench.path.settings, dtype=str(bench.path.info()["dtype"]))
        print(f"{args.talks} talks of {args.sentences} sentences; {bench.path.info()['device']}")
        print(f"| {' | '.join(HEADS)} |\n{'|---' * len(HEADS)}|", flush=True)
        heard: dict[Talk, list[bool]] = {}
        for steps in args.steps:
            for way in args.ways.split(","):
                bench.path = StreamingPath(replace(settings, steps=steps, silence=way))
                print(measure(bench, talks, steps, way, heard), flush=True)
        if args.noise:
            print(f"\n| {' | '.join(NOISE_HEADS)} |\n{'|---' * len(NOISE_HEADS)}|")
            for way in args.ways.split(","):
                bench.path = StreamingPath(replace(settings, steps=args.steps[0], silence=way))
                print(f"--silence {way}")
                for row in noise_rows(bench, args.noise):
                    print(row, flush=True)
    return 0
