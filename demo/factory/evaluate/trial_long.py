"""One long session: whether clip boundaries are seen, and whether the picture holds over minutes."""

from __future__ import annotations

import math

import numpy as np

from demo.factory.evaluate.bench import Bench
from demo.factory.evaluate.judge import Scores, mean_change
from demo.factory.evaluate.material import LOOP, LOOP_FPS, Scene, Speech
from demo.factory.evaluate.path import Picture
from demo.factory.evaluate.scores import correlation, psnr, seam_figure
from demo.factory.evaluate.table import Section
from demo.factory.motion.mouth import TRACK_RATE

CLIP_SECONDS = 0.5
#: How much worse a picture may score after minutes and still count as the same.
PSNR_SLACK, CORRELATION_SLACK = 0.3, 0.02


def run(bench: Bench) -> Section:
    """Play a session whose first words come again at its end."""
    section = Section("One long session")
    scale = bench.scale
    window = math.ceil(scale.drift_window / CLIP_SECONDS) * CLIP_SECONDS
    loop = LOOP / LOOP_FPS
    # A whole number of pose loops later the same words meet the same hands: the truth is the same again. A
    # session of seconds is too short for that.
    step = loop if scale.drift_seconds > 2 * loop else CLIP_SECONDS
    again = math.ceil(max(scale.drift_seconds, window, scale.seam_seconds) / step) * step
    material = bench.material
    voice = material.voices[0]
    words, other = material.speech(voice, window, 901), material.speech(voice, again - window, 902)
    samples = np.concatenate([words.samples, other.samples, words.samples])
    mouths = [s.mouth[: round(s.seconds * TRACK_RATE)] for s in (words, other, words)]
    scene = Scene(0, material.poses[0], Speech(samples, np.concatenate(mouths), np.zeros((0, 2)), voice))
    early, late, changes = _play(bench, scene, window, again)
    figure = seam_figure(changes, bench.path.clip_frames)
    section.at_most(
        f"Seam figure over {scale.seam_seconds:g} s",
        figure,
        1.15,
        digits=3,
        note="mean absolute change across clip boundaries over that within clips; 1.0 is invisible",
    )
    then, now = bench.judged(scene, early), bench.judged(scene, late, round(again * bench.fps))
    drawn = _drawn_seams(bench, scene, len(early))
    section.told(
        f"… of the drawn truth, first {window:g} s", f"{drawn:.3f}", "chance alone moves it with so few seams"
    )
    _drift_rows(section, then, now, window, again)
    section.numbers |= {
        "seam_figure": figure,
        "seam_seconds": scale.seam_seconds,
        "seam_figure_of_truth": drawn,
    }
    return section


def _play(bench: Bench, scene: Scene, window: float, again: float) -> tuple[Picture, Picture, np.ndarray]:
    """Pictures of the first `window` seconds and of those from `again` on, and changes for the seam figure.

    The rest is denoised too, because every clip starts from the one before, but it is not decoded.
    """
    shown = round(max(bench.scale.seam_seconds, window) * bench.fps)
    seams = round(bench.scale.seam_seconds * bench.fps)
    first_late = round(again * bench.fps)
    early, late, changes = [], [], []
    before: Picture | None = None
    for made in bench.play(scene, wanted=lambda first: first < shown or first >= first_late):
        if made.pictures is None:
            continue
        if made.first >= first_late:
            late.append(made.pictures)
            continue
        if made.first < seams:
            changes.append(mean_change(made.pictures, before))
            before = made.pictures[-1]
        if made.first < window * bench.fps:
            early.append(made.pictures)
    return np.concatenate(early), np.concatenate(late), np.concatenate(changes)


def _drawn_seams(bench: Bench, scene: Scene, frames: int) -> float:
    """The seam figure of the truth, which is near 1, because the truth has no clips."""
    changes, before = [], None
    for first in range(0, frames, 12):
        truth, _ = bench.judge.truth(scene, first, min(12, frames - first))
        pictures = truth.mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        changes.append(mean_change(pictures, before))
        before = pictures[-1]
    return seam_figure(np.concatenate(changes), bench.path.clip_frames)


def _drift_rows(section: Section, then: Scores, now: Scores, window: float, again: float) -> None:
    pairs = {
        "PSNR": (float(psnr(then.error).mean()), float(psnr(now.error).mean()), PSNR_SLACK, " dB"),
        "mouth PSNR": (
            float(psnr(then.mouth_error).mean()), float(psnr(now.mouth_error).mean()), PSNR_SLACK, " dB",
        ),
        "mouth correlation": (
            correlation(then.opening, then.true_opening), correlation(now.opening, now.true_opening),
            CORRELATION_SLACK, "",
        ),
    }  # fmt: skip
    note = (
        "the same words come again then; after whole pose loops the hands too, so that the truth is the same"
    )
    for name, (before, after, slack, unit) in pairs.items():
        section.judged(
            f"First {window:g} s → after {again / 60:.1f} min: {name}",
            f"{before:.2f} → {after:.2f}{unit}",
            f"no worse than {slack:g}{unit}",
            after >= before - slack,
            note,
        )
        note = ""
    section.numbers |= {name: {"first": a, "after": b} for name, (a, b, _, _) in pairs.items()}
    section.numbers |= {"after_seconds": again, "window_seconds": window}
