"""Pictures of twice the side, and the cost of eight bits at both sizes."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from demo.factory.evaluate.bench import Bench
from demo.factory.evaluate.judge import Judge, Scores
from demo.factory.evaluate.material import Scene
from demo.factory.evaluate.path import Picture
from demo.factory.evaluate.scores import closures_shut, correlation, psnr
from demo.factory.evaluate.table import Section
from protocol.wire.messages import Array16

FINE = "finer head"
AS_SERVED, EXACT = "as served", "in float32"
#: Ways to enlarge. A canvas takes the first as a rule, and an element's own scaling the second.
ENLARGED = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "Lanczos": Image.Resampling.LANCZOS,
}
#: Every so many frames, the finer head is judged, and the rest is too. The opening is read from all frames.
JUDGED, COMPARED = 3, 12


@dataclass
class _FineScores:
    """Scores by kind of picture, and lip closures that the finer head shows shut, of all."""

    scores: defaultdict[str, list[Scores]] = field(default_factory=lambda: defaultdict(list))
    shut: int = 0
    closures: int = 0


def run(bench: Bench) -> Section:
    """Play held-out scenes and compare both sizes with the truth drawn at each."""
    section = Section("Pictures of twice the side")
    if not bench.path.config.has_fine_head:
        section.told("Finer head", "none", "this model's VAE draws one size")
        return section
    judge = Judge(bench.material, bench.fps, bench.material.renderer_of(2 * bench.material.renderer.size))
    seen = _FineScores()
    for scene in bench.material.scenes(bench.scale.identities, bench.scale.seconds):
        _play(bench, judge, scene, seen)
    made = {name: Scores.cat(parts) for name, parts in seen.scores.items()}
    _fine_rows(section, made[FINE], seen)
    for name in ENLARGED:
        _told_rows(section, f"usual pictures enlarged, {name}", made[name])
    served = bench.path.decoder().describe()
    for name, scores in made.items():
        if name.endswith((AS_SERVED, EXACT)):
            _told_rows(section, f"{name} ({served})" if name.endswith(AS_SERVED) else name, scores)
    return section


def _play(bench: Bench, judge: Judge, scene: Scene, seen: _FineScores) -> None:
    """Score one scene."""
    avatar, openings, first = bench.material.names[scene.identity], [], 0
    for clip in bench.path.latents(avatar, scene.pose, scene.speech.samples):
        fine = bench.path.pictures(clip.latents, fine=True)
        state = bench.material.states(scene, first, len(fine), bench.fps)
        openings.append(judge.opening(scene, judge.tensor(fine), state))
        for number in range(-first % JUDGED, len(fine), JUDGED):
            seen.scores[FINE].append(judge.score(scene, first + number, fine[number : number + 1]))
        for number in range(-first % COMPARED, len(fine), COMPARED):
            one = clip.latents[number : number + 1]
            _compare(bench, judge, scene, first + number, one, seen)
        first += len(fine)
    shut, closures = closures_shut(np.concatenate(openings), scene.speech.closures, bench.fps)
    seen.shut, seen.closures = seen.shut + shut, seen.closures + closures


def _compare(
    bench: Bench, judge: Judge, scene: Scene, frame: int, latents: Array16, seen: _FineScores
) -> None:
    """Score one frame as a browser enlarges it, and as decoders with other arithmetic draw it."""
    plain = bench.path.pictures(latents)
    for name, way in ENLARGED.items():
        seen.scores[name].append(judge.score(scene, frame, enlarged(plain, way)))
    for size, its in ((bench.judge.renderer.size, bench.judge), (judge.renderer.size, judge)):
        for name, exact in ((AS_SERVED, False), (EXACT, True)):
            drawn = bench.path.pictures(latents, fine=its is judge, exact=exact)
            seen.scores[f"{size}² {name}"].append(its.score(scene, frame, drawn))


def enlarged(pictures: Picture, way: Image.Resampling) -> Picture:
    """Pictures (n, H, W, 3) at twice their side."""
    size = 2 * pictures.shape[2], 2 * pictures.shape[1]
    return np.stack([np.asarray(Image.fromarray(picture).resize(size, way)) for picture in pictures])


def _figures(scores: Scores) -> dict[str, float]:
    return {
        "psnr": float(psnr(scores.error).mean()),
        "mouth_psnr": float(psnr(scores.mouth_error).mean()),
        "ssim": float(scores.ssim.mean()),
        "mouth_edges": float(scores.mouth_edges.mean()),
        "hand_edges": float(scores.hand_edges.mean()),
        "mouth_strength": float(scores.mouth_strength.mean()),
        "hand_strength": float(scores.hand_strength.mean()),
        "opening": correlation(scores.opening, scores.true_opening),
        "frames": len(scores.error),
    }


def _fine_rows(section: Section, scores: Scores, seen: _FineScores) -> None:
    figures = _figures(scores)
    section.numbers[FINE] = {**figures, "closures_shut": seen.shut, "closures": seen.closures}
    section.at_least(f"{FINE}: PSNR, whole frame", figures["psnr"], 32, " dB")
    section.at_least(f"{FINE}: SSIM", figures["ssim"], 0.96, digits=4)
    section.at_least(f"{FINE}: PSNR, mouth box", figures["mouth_psnr"], 28.5, " dB")
    for place in ("mouth", "hand"):
        section.at_least(f"{FINE}: edges kept, {place}", figures[f"{place}_edges"], 0.8, digits=2)
    section.at_least(f"{FINE}: mouth opening, correlation", figures["opening"], 0.94, digits=3)
    section.at_least(
        f"{FINE}: closures (m, b, p) shut",
        100 * seen.shut / max(seen.closures, 1),
        94,
        " %",
        1,
        f"{seen.shut} of {seen.closures} show a shut mouth on a frame of the closure",
    )
    section.told(
        f"{FINE}: strength of edges, mouth, hands",
        f"{figures['mouth_strength']:.2f}, {figures['hand_strength']:.2f}",
        f"every {JUDGED}rd frame, and every frame's opening; the rows below have every {COMPARED}th",
    )


def _told_rows(section: Section, name: str, scores: Scores) -> None:
    figures = _figures(scores)
    section.numbers[name] = figures
    section.told(
        f"{name}: PSNR, mouth box, SSIM",
        f"{figures['psnr']:.2f} dB, {figures['mouth_psnr']:.2f} dB, {figures['ssim']:.4f}",
    )
    section.told(
        "… edges kept and their strength: mouth, hands",
        f"{figures['mouth_edges']:.2f} and {figures['mouth_strength']:.2f},"
        f" {figures['hand_edges']:.2f} and {figures['hand_strength']:.2f}",
    )
