"""Find where edges at mouth and hands are lost: `python -m demo.factory.evaluate.edges [--frames 12]`.

Held-out people speak through the streaming path, and the VAE's finer head draws at 512². The share of edges
kept is their likeness (a cosine of gradients) times their strength, so each row has all three. Rows are

- the pictures as served,
- the same with true latents, everywhere or in some places: the VAE alone, at the mouth, elsewhere,
- the frame before and after, which would be better if the mouth came late or early,
- the pictures moved by up to a pixel each way, the best by frame: edges that lie a pixel away,
- the pictures against another drawn mouth, the likest of several by frame: another moment, wider or less
  open. What is won shows how much the wrong mouth costs, and what is left is softness,
- drawn pictures whose mouth alone comes some milliseconds late, or opens a tenth less: what a perfect drawing
  keeps if it hears a little wrong,
- with --descend N, N pictures from latents that were searched for by descent: the decoder's own limit.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from demo.factory.evaluate.bench import Bench
from demo.factory.evaluate.command import make_bench, parse
from demo.factory.evaluate.judge import Judge
from demo.factory.evaluate.material import Scene
from demo.factory.evaluate.scores import OPEN, SHUT, edges, inside
from demo.factory.figure.measure import hand_boxes, mouth_box, true_opening
from demo.factory.figure.state import FigureState
from demo.factory.motion.mouth import TRACK_RATE
from encoder_worker.vae.decoders import Decoder, load_decoder
from protocol.model.vae_folder import VaeFolder
from protocol.process.settings import Settings
from protocol.wire.messages import Array16

AS_SERVED, VAE_ALONE = "as served", "VAE alone"
NEAREST, NEAREST_VAE = "likest drawn mouth", "VAE alone, likest drawn mouth"
#: Other drawn mouths: moments in frames from the right one, and factors of the opening.
MOMENTS, FACTORS = (-2, -1, 1, 2), (0.6, 0.8, 1.2, 1.4)
MOUTH = ("mouth_open", "mouth_width", "mouth_round", "teeth", "lips_pressed", "tongue")
#: Lateness of a drawn mouth in steps of its track, and the factor of its opening.
LATE, LESS = (1, 2, 3), 0.9
#: Change of the drawn opening over two frames from which a mouth moves, and error of the opening in a row.
MOVING, WRONG = 0.06, (0.02, 0.05)
#: Steps of the search for latents, and their size.
DESCENT, RATE = 60, 0.03


@dataclass(frozen=True)
class EdgeRow:
    """One picture in one place.

    Attributes:
        way: how it was made.
        place: `mouth` or `hands`.
        person: whose picture it is.
        moment: words on the mouth at that time.
        kept: share of the truth's edges kept.
        strength: of the edges, over the truth's.
    """

    way: str
    place: str
    person: str
    moment: tuple[str, ...]
    kept: float
    strength: float

    @property
    def likeness(self) -> float:
        """The cosine of the gradients."""
        return self.kept / max(self.strength, 1e-9)


class EdgeTrial:
    """Makes and compares the pictures.

    Args:
        bench: the streaming path and the people.
        every: frames from one picture to the next.
    """

    def __init__(self, bench: Bench, every: int) -> None:
        self._bench, self._every = bench, every
        self._judge = Judge(bench.material, bench.fps, bench.material.renderer_of(512))

    def scene(self, scene: Scene) -> Iterator[EdgeRow]:
        """The rows of one session."""
        bench = self._bench
        clips = bench.path.latents(bench.material.names[scene.identity], scene.pose, scene.speech.samples)
        made = np.concatenate([clip.latents for clip in clips])
        for frame in range(3, len(made) - 3, self._every):
            yield from self._frame(scene, frame, made)

    def _frame(self, scene: Scene, frame: int, made: Array16) -> Iterator[EdgeRow]:
        truth, state = self._judge.truth(scene, frame, 1)
        true, served = self.true_latents(scene, frame), made[frame : frame + 1]
        boxes = self.boxes(state)
        at = {place: self._cells(box, true) for place, box in boxes.items()}
        sources = {
            AS_SERVED: served, VAE_ALONE: true,
            "true latents at the mouth": np.where(at["mouth"], true, served),
            "true latents elsewhere": np.where(at["mouth"], served, true),
            "true latents at the hands": np.where(at["hands"], true, served),
            "frame before": made[frame - 1 : frame], "frame after": made[frame + 1 : frame + 2],
        }  # fmt: skip
        shown = {way: self._shown(latents) for way, latents in sources.items()}
        moment = self._moment(scene, frame, state, shown[AS_SERVED])
        person = self._bench.material.names[scene.identity]

        def row(way: str, place: str, picture: Tensor, its: Tensor = truth) -> EdgeRow:
            kept, strength = edges(picture, its, inside(boxes[place], 512))
            return EdgeRow(way, place, person, moment, float(kept), float(strength.sqrt()))

        for way, picture in shown.items():
            yield from (row(way, place, picture) for place in boxes)
        for place in boxes:
            moved = [row("moved by a pixel", place, p) for p in moved_by_a_pixel(shown[AS_SERVED])]
            yield max(moved, key=lambda each: each.likeness)
        for way, picture in self._drawn_a_little_wrong(scene, frame, state):
            yield row(way, "mouth", picture)
        others = [truth, *self._other_mouths(scene, frame, state).split(1)]
        for way, of in ((NEAREST, AS_SERVED), (NEAREST_VAE, VAE_ALONE)):
            yield max((row(way, "mouth", shown[of], its) for its in others), key=lambda each: each.likeness)

    def true_latents(self, scene: Scene, frame: int) -> Array16:
        """Scaled latents (1, C, h, w) of a frame's drawn picture."""
        small, _ = self._bench.judge.truth(scene, frame, 1)
        return self._bench.path.encode(small.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy())

    def boxes(self, state: FigureState) -> dict[str, Tensor]:
        """The boxes (n, k, 4) of mouth and hands at 512²."""
        renderer = self._judge.renderer
        return {"mouth": mouth_box(renderer, state)[:, None], "hands": hand_boxes(renderer, state)}

    def _cells(self, boxes: Tensor, latents: Array16) -> NDArray[np.bool_]:
        """The latent's places (1, 1, h, w) that a picture's boxes touch."""
        side = latents.shape[-1]
        touched = F.max_pool2d(inside(boxes, 512)[:, None].float(), 512 // side)
        cells: NDArray[np.bool_] = touched.bool().numpy()
        return cells

    def _shown(self, latents: Array16) -> Tensor:
        return self._judge.tensor(self._bench.path.pictures(latents, fine=True))

    def _moment(self, scene: Scene, frame: int, state: FigureState, shown: Tensor) -> tuple[str, ...]:
        """Words on the drawn mouth and on how wrong the shown one is."""
        states = self._bench.material.states(scene, frame - 1, 3, self._bench.fps)
        who = self._bench.material.identity(scene, 3)
        before, now, after = true_opening(self._judge.renderer, who, states).tolist()
        read = float(self._bench.judge.opening(scene, F.avg_pool2d(shown, 2), state)[0])
        opening = "drawn shut" if now < SHUT else "drawn open" if now > OPEN else "drawn between"
        change = after - before
        way = "opening" if change > MOVING else "closing" if change < -MOVING else "at rest"
        low, high = WRONG
        wrong = "little" if abs(read - now) < low else "much" if abs(read - now) > high else "some"
        return opening, way, f"opening wrong by {wrong}"

    def _other_mouths(self, scene: Scene, frame: int, state: FigureState) -> Tensor:
        """The truth with mouths of other moments, and with the mouth wider or less open (n, 3, 512, 512)."""
        moments = [self._bench.material.states(scene, frame + by, 1, self._bench.fps) for by in MOMENTS]
        moments += [state.replace(mouth_open=(state.mouth_open * by).clamp(0, 1)) for by in FACTORS]
        return self._with_mouths(scene, state, moments)

    def _drawn_a_little_wrong(
        self, scene: Scene, frame: int, state: FigureState
    ) -> Iterator[tuple[str, Tensor]]:
        """The truth with a mouth that comes late or opens less, by its words."""
        first = frame * TRACK_RATE // self._bench.fps
        moments = [self._bench.material.states(scene, first - by, 1, TRACK_RATE) for by in LATE]
        ways = [f"drawn, the mouth {1000 * by / TRACK_RATE:.0f} ms late" for by in LATE]
        moments.append(state.replace(mouth_open=state.mouth_open * LESS))
        ways.append("drawn, the mouth a tenth less open")
        yield from zip(ways, self._with_mouths(scene, state, moments).split(1), strict=True)

    def _with_mouths(self, scene: Scene, state: FigureState, moments: Sequence[FigureState]) -> Tensor:
        """Pictures (n, 3, 512, 512) of one state with the mouths of n moments."""
        material, count = self._bench.material, len(moments)
        many = {name: torch.cat([getattr(each, name) for each in moments]) for name in MOUTH}
        same = {name: value.expand(count, *value.shape[1:]) for name, value in vars(state).items()}
        who, states = material.identity(scene, count), FigureState(**{**same, **many})
        pictures: Tensor = self._judge.renderer.render(who, states)
        return pictures

    def descend(self, scenes: Sequence[Scene], count: int, seconds: float) -> Iterator[EdgeRow]:
        """The mouths of pictures whose latents are searched for: what the decoder can draw at most.

        The search starts from the encoder's latents. There is no JPEG, and the decoder is in float32.
        """
        decoder = load_decoder(VaeFolder.of(self._bench.path.config), fine=True).requires_grad_(False)
        for number in range(count):
            scene = scenes[number % len(scenes)]
            frame = round((number + 0.5) / count * seconds * self._bench.fps)
            truth, state = self._judge.truth(scene, frame, 1)
            where = inside(self.boxes(state)["mouth"], 512)
            encoded = torch.from_numpy(self.true_latents(scene, frame)).float()
            latents = encoded / decoder.scaling + decoder.shift
            for way in ("the encoder's latents, as the search starts", "searched latents"):
                with torch.inference_mode():
                    kept, strength = edges(_drawn_by(decoder, latents).clamp(0, 1), truth, where)
                yield EdgeRow(way, "mouth", "", (), float(kept), float(strength.sqrt()))
                if way != "searched latents":
                    latents = _searched(decoder, latents, truth, where)


def _drawn_by(decoder: Decoder, latents: Tensor) -> Tensor:
    """Pictures (n, 3, H, W), nominally in 0..1, of unscaled latents."""
    pictures: Tensor = decoder(latents)
    return pictures.add(1).div(2)


def _searched(decoder: Decoder, latents: Tensor, truth: Tensor, where: Tensor) -> Tensor:
    """Latents whose picture is nearer to the truth in values and gradients, where it counts."""
    found = latents.clone().requires_grad_()
    optimizer = torch.optim.Adam([found], RATE)
    for _ in range(DESCENT):
        apart = (_drawn_by(decoder, found) - truth) * where[:, None]
        loss = sum(part.square().sum() for part in (apart, apart.diff(dim=2), apart.diff(dim=3)))
        assert isinstance(loss, Tensor)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return found.detach()


def moved_by_a_pixel(picture: Tensor) -> Iterator[Tensor]:
    """The picture (n, 3, h, w), and the same moved by a pixel to each of eight sides."""
    for by in product((-1, 0, 1), repeat=2):
        yield torch.roll(picture, by, (2, 3))


def table(rows: Sequence[EdgeRow], head: str, name: Callable[[EdgeRow], Sequence[str]]) -> str:
    """A table in Markdown: means of the rows of each name."""
    groups: dict[str, list[EdgeRow]] = {}
    for row in rows:
        for each in name(row):
            groups.setdefault(each, []).append(row)
    lines = [f"| {head} | pictures | kept | likeness | strength |", "|---|---:|---:|---:|---:|"]
    for each, its in groups.items():
        figures = [(row.kept, row.likeness, row.strength) for row in its]
        means = " | ".join(f"{mean:.3f}" for mean in np.mean(figures, axis=0))
        lines.append(f"| {each} | {len(its)} | {means} |")
    return "\n".join(lines)


def report(rows: Sequence[EdgeRow]) -> Iterator[str]:
    """All tables."""
    for place in ("mouth", "hands"):
        yield table([row for row in rows if row.place == place], place, lambda row: [row.way])
    mouths = [row for row in rows if row.place == "mouth" and row.way in (AS_SERVED, VAE_ALONE, NEAREST)]
    yield table(mouths, "mouth, by moment", lambda row: [f"{word}, {row.way}" for word in sorted(row.moment)])
    served = [row for row in rows if row.way == AS_SERVED]
    yield table(served, "as served, by person", lambda row: [f"{row.place} of {row.person}"])


def parser() -> argparse.ArgumentParser:
    """The flags of the command."""
    made = argparse.ArgumentParser(
        prog="python -m demo.factory.evaluate.edges", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    made.add_argument("--scenes", type=int, default=8, help="identities that speak")
    made.add_argument("--seconds", type=float, default=4.0, help="speech of each")
    made.add_argument("--every", type=int, default=5, help="frames from one compared picture to the next")
    made.add_argument("--descend", type=int, default=0, help="pictures to search latents for (default 0)")
    made.add_argument("--cpu-engine", default="auto", help="library on a CPU")
    made.add_argument("--config", type=Path, default=Settings().config, help="of another model")
    made.add_argument("--figure", help="file of identities (default: that of the evaluation)")
    made.add_argument("--speech", help="file of speech (default: that of the evaluation)")
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Returns the exit status."""
    args = parser().parse_args(argv)
    words = ["--identities", str(args.scenes), "--cpu-engine", args.cpu_engine, "--config", str(args.config)]
    for flag in ("figure", "speech"):
        if getattr(args, flag):
            words += [f"--{flag}", getattr(args, flag)]
    with tempfile.TemporaryDirectory() as folder:
        bench = make_bench(parse(words), Path(folder))
        trial = EdgeTrial(bench, args.every)
        scenes = bench.material.scenes(args.scenes, args.seconds)
        rows: list[EdgeRow] = []
        for scene in scenes:
            rows += trial.scene(scene)
            sys.stderr.write(f"{bench.material.names[scene.identity]}: {len(rows)} rows\n")
        rows += trial.descend(scenes, args.descend, args.seconds)
        print(f"{args.scenes} people, {args.seconds:g} s each; {bench.path.info()['decoder']}\n")
        print("\n\n".join(report(rows)))
    return 0
