"""A trial that exchanges sound, reference and pose one by one.

It shows whether the model uses every condition, and each for its own part alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from demo.factory.evaluate.bench import Bench
from demo.factory.evaluate.material import Scene
from demo.factory.evaluate.path import Picture
from demo.factory.evaluate.scores import correlation, differing, psnr, rest_of
from demo.factory.evaluate.table import Section

#: By how much a picture must score better against its own truth than against the other condition's.
PLAINLY = 6.0
#: Allowed change of the figures that a condition must not change.
CORRELATION_SLACK, PSNR_SLACK = 0.05, 1.5
#: Pictures that are alike to this many dB are the same to the eye.
UNSEEN = 45.0


@dataclass(frozen=True, eq=False)
class Exchange:
    """Figures of one scene. `own` and `other` are PSNR against the right truth and the exchanged one."""

    base_correlation: float
    shuffled: float
    base_psnr: float
    reference_own: float
    reference_other: float
    reference_correlation: float
    hands_own: float
    hands_other: float
    rest_kept: float
    rest_noise: float


def run(bench: Bench) -> Section:
    """Play scenes with each condition exchanged."""
    section = Section("Every condition is used")
    scenes = bench.material.scenes(bench.scale.condition_scenes, bench.scale.condition_seconds, seed=500)
    figures: list[Exchange] = []
    for number, scene in enumerate(scenes):
        figures.append(_exchange(bench, section, scene, number))
    mean = {name: float(np.mean([getattr(f, name) for f in figures])) for name in Exchange.__annotations__}
    section.numbers |= mean
    _rows(section, mean)
    return section


def _exchange(bench: Bench, section: Section, scene: Scene, number: int) -> Exchange:
    material = bench.material
    base, score = bench.score(scene)
    again = bench.pictures(scene)  # the same but for the noise
    # Another voice's sentences in place of its own.
    voice = material.voices[(material.voices.index(scene.speech.voice) + 1) % len(material.voices)]
    shuffled = replace(scene, speech=material.speech(voice, scene.speech.seconds, 700 + number))
    _, other_sound = bench.score(shuffled, truth=scene)
    someone = replace(scene, identity=(scene.identity + 1) % len(material.names))
    referred, own = bench.score(someone)
    pose = material.poses[(material.poses.index(scene.pose) + 1) % len(material.poses)]
    gesture = replace(scene, pose=pose)
    moved = bench.pictures(gesture)
    hands = _hands(bench, scene, gesture, base, again, moved)
    if number == 0:
        middle = len(base) // 2
        section.sheets["conditions"] = [
            ("as it is", base[middle]),
            ("another reference", referred[middle]),
            ("another pose", moved[middle]),
        ]
    return Exchange(
        correlation(score.opening, score.true_opening),
        correlation(other_sound.opening, other_sound.true_opening),
        _db(score.error),
        _db(own.error),
        _db(bench.judged(scene, referred).error),
        correlation(own.opening, own.true_opening),
        *hands,
    )


def _hands(
    bench: Bench, scene: Scene, gesture: Scene, base: Picture, again: Picture, moved: Picture
) -> tuple[float, float, float, float]:
    """Four figures of PSNR, two where the hands differ and two of the rest.

    The first two compare with the right hands and with the wrong ones. The last two compare two outputs:
    those of the two gestures, and those of two noises.
    """
    errors: list[list[float]] = [[], [], [], []]
    for first in range(0, len(base), 12):
        part = slice(first, first + 12)
        there, _ = bench.judge.truth(scene, first, len(base[part]))
        here, _ = bench.judge.truth(gesture, first, len(base[part]))
        differs = differing(there, here)
        rest = rest_of(differs)
        made = [bench.judge.tensor(pictures[part]) for pictures in (moved, base, again)]
        errors[0] += _error_where(made[0], here, differs)
        errors[1] += _error_where(made[0], there, differs)
        errors[2] += _error_where(made[0], made[1], rest)
        errors[3] += _error_where(made[2], made[1], rest)
    return _db(errors[0]), _db(errors[1]), _db(errors[2]), _db(errors[3])


def _error_where(a: torch.Tensor, b: torch.Tensor, where: torch.Tensor) -> list[float]:
    """Mean squared errors of pictures (n, 3, h, w) inside masks (n, 1, h, w). Empty masks are left out."""
    pixels = where.sum((1, 2, 3))
    error = ((a - b).square() * where).sum((1, 2, 3)) / (3 * pixels.clamp_min(1))
    return [float(e) for e, p in zip(error, pixels, strict=True) if p > 50]


def _db(errors: Sequence[float] | NDArray[np.floating]) -> float:
    """Mean PSNR, or NaN where nothing was compared."""
    return float(psnr(np.asarray(errors)).mean()) if len(errors) else float("nan")


def _rows(section: Section, mean: dict[str, float]) -> None:
    section.below(
        "Shuffled audio: mouth correlation",
        mean["shuffled"],
        0.2,
        digits=3,
        note=f"another voice's sentences in place of its own, which reach {mean['base_correlation']:.3f}",
    )
    own, other = mean["reference_own"], mean["reference_other"]
    section.judged(
        "Another reference: PSNR against that identity, against the first",
        f"{own:.1f}, {other:.1f} dB",
        f"≥ {PLAINLY:g} dB apart",
        own >= other + PLAINLY,
    )
    kept = (
        mean["reference_correlation"] >= mean["base_correlation"] - CORRELATION_SLACK
        and own >= mean["base_psnr"] - PSNR_SLACK
    )
    section.judged(
        "… and nothing else: mouth correlation, PSNR, before → after",
        f"{mean['base_correlation']:.3f} → {mean['reference_correlation']:.3f}, "
        f"{mean['base_psnr']:.1f} → {own:.1f} dB",
        f"no worse than {CORRELATION_SLACK:g}, {PSNR_SLACK:g} dB",
        kept,
        "against the other identity's truth with the same words, hands and life: had anything else changed, "
        "it would score worse",
    )
    section.judged(
        "Another pose: PSNR where hands differ, against its own, against the first",
        f"{mean['hands_own']:.1f}, {mean['hands_other']:.1f} dB",
        f"≥ {PLAINLY:g} dB apart",
        mean["hands_own"] >= mean["hands_other"] + PLAINLY,
    )
    section.judged(
        "… and nothing else: likeness of the rest, to another noise's",
        f"{mean['rest_kept']:.1f}, {mean['rest_noise']:.1f} dB",
        f"no worse than {PSNR_SLACK:g} dB, or over {UNSEEN:g}",
        mean["rest_kept"] >= min(mean["rest_noise"] - PSNR_SLACK, UNSEEN),
        "PSNR between two outputs away from the hands: with the other pose, with other noise alone",
    )
