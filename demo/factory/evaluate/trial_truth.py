"""Identities, voices and hands never trained on, against the drawn truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from demo.factory.evaluate.bench import Bench
from demo.factory.evaluate.judge import Scores
from demo.factory.evaluate.material import Scene
from demo.factory.evaluate.path import Picture
from demo.factory.evaluate.scores import (
    best_lag,
    closures_shut,
    correlation,
    lag_correlations,
    loudness,
    psnr,
    syllables,
    wrongly_shut,
)
from demo.factory.evaluate.table import Section
from demo.factory.figure.measure import crop_mouth, mouth_box
from demo.factory.motion.mouth import TRACK_RATE
from demo.factory.motion.visemes import CHANNELS
from protocol.wire.clock import SAMPLE_RATE

SHOWN_SCENES = 4
CEILING_FRAMES = 6  # of each scene
ALIKE = 0.5
#: Share of the drawing's edges that a sharp mouth and sharp hands keep.
SHARP = 0.8


@dataclass(frozen=True, eq=False)
class Moment:
    """A picture beside its truth, both uint8 (H, W, 3)."""

    label: str
    truth: Picture
    made: Picture


def run(bench: Bench) -> Section:
    """Play held-out scenes and score their pictures and mouths against the truth."""
    section = Section("Held-out identities × voices × hands")
    scenes = bench.material.scenes(bench.scale.identities, bench.scale.seconds)
    scores, sheets = [], []
    for number, scene in enumerate(scenes):
        pictures, score = bench.score(scene)
        scores.append(score)
        if number < SHOWN_SCENES:
            sheets.append((_title(bench, scene), _moments(bench, scene, pictures)))
        if number == 0:
            section.sheets["strip"] = _strip(bench, scene, pictures)
    _picture_rows(bench, section, scenes, scores)
    _opening_rows(section, scores)
    _closure_rows(bench, section, scenes, scores)
    section.sheets["truth"] = sheets
    section.sheets["curves"] = [
        (_title(bench, scene), {"truth": score.true_opening, "output": score.opening})
        for scene, score in list(zip(scenes, scores, strict=True))[:SHOWN_SCENES]
    ]
    return section


def _title(bench: Bench, scene: Scene) -> str:
    return f"{bench.material.names[scene.identity]}, {scene.speech.voice}, hands {scene.pose}"


def _picture_rows(bench: Bench, section: Section, scenes: list[Scene], scores: list[Scores]) -> None:
    every = Scores.cat(scores)
    means = [float(psnr(score.error).mean()) for score in scores]
    mouths = [float(psnr(score.mouth_error).mean()) for score in scores]
    section.at_least("PSNR, whole frame", float(np.mean(means)), 31, " dB", note="mean of all frames")
    section.at_least("SSIM, whole frame", float(every.ssim.mean()), 0.95, digits=4)
    section.at_least("PSNR, mouth box", float(np.mean(mouths)), 28, " dB")
    section.told("… of the worst scene: whole frame, mouth box", f"{min(means):.2f} dB, {min(mouths):.2f} dB")
    through_vae = _through_vae(bench, scenes)
    ceiling, mouth_ceiling = (
        float(psnr(error).mean()) for error in (through_vae.error, through_vae.mouth_error)
    )
    section.told(
        "VAE and JPEG alone: whole frame, mouth box",
        f"{ceiling:.2f} dB, {mouth_ceiling:.2f} dB",
        "the drawn picture encoded and decoded, which a perfect denoiser would reach",
    )
    kept = {"mouth": (every.mouth_edges, through_vae.mouth_edges, every.mouth_strength),
            "hands": (every.hand_edges, through_vae.hand_edges, every.hand_strength)}  # fmt: skip
    for name, (made, limit, _) in kept.items():
        section.at_least(
            f"Sharpness: edges kept, {name}",
            float(made.mean()),
            SHARP,
            digits=2,
            note=f"gradients projected on the drawn ones; VAE and JPEG alone {limit.mean():.2f}, the worst "
            f"tenth of frames {np.percentile(made, 10):.2f}",
        )
    section.told(
        "… how strong the edges are, wherever they lie: mouth, hands",
        ", ".join(f"{strength.mean():.2f}" for _, _, strength in kept.values()),
        "of the drawing's; a smear weakens edges, one in another place is only missing from its own",
    )
    section.numbers |= {
        "mouth_strength": float(every.mouth_strength.mean()),
        "hand_strength": float(every.hand_strength.mean()),
        "mouth_edges": float(every.mouth_edges.mean()), "hand_edges": float(every.hand_edges.mean()),
        "psnr": float(np.mean(means)), "psnr_by_scene": means,
        "psnr_of_mean_error": float(psnr(every.error.mean())),
        "ssim": float(every.ssim.mean()), "mouth_psnr": float(np.mean(mouths)), "mouth_psnr_by_scene": mouths,
        "vae_psnr": ceiling, "vae_mouth_psnr": mouth_ceiling, "frames": len(every.error),
        "scenes": [_title(bench, scene) for scene in scenes],
    }  # fmt: skip


def _opening_rows(section: Section, scores: list[Scores]) -> None:
    """Rows on how the mouth's opening follows the truth's."""
    by_scene = [correlation(score.opening, score.true_opening) for score in scores]
    lagged = [lag_correlations(score.opening, score.true_opening) for score in scores]
    lags = [best_lag(correlations) for correlations in lagged]
    lag = best_lag(np.mean(lagged, axis=0))
    section.at_least(
        "Mouth opening against truth: correlation",
        float(np.mean(by_scene)),
        0.92,
        digits=3,
        note=f"read from both pictures by `figure.measure.MouthMeter`; worst scene {min(by_scene):.3f}",
    )
    followed = [correlation(score.true_opening, score.drawn_opening) for score in scores]
    section.at_least(
        "… the meter itself: its reading of the drawn truth against the opening that was drawn",
        float(np.mean(followed)),
        0.99,
        digits=3,
        note=f"correlation, worst scene {min(followed):.3f}, the worth of a reading with any model",
    )
    section.judged(
        "… best lag",
        f"{lag:+d} frames",
        "within ±1",
        abs(lag) <= 1 and float(np.max(np.mean(lagged, axis=0))) >= ALIKE,
        f"of the mean over scenes; single scenes {min(lags):+d} to {max(lags):+d}; positive is "
        f"late; told apart only where curves are alike, from a correlation of {ALIKE:g} on",
    )
    size = float(np.mean([np.std(s.opening) / max(float(np.std(s.true_opening)), 1e-9) for s in scores]))
    section.told("… size of the movement", f"{size:.2f} of the truth's", "ratio of standard deviations")
    section.numbers |= {
        "mouth_correlation": float(np.mean(by_scene)), "mouth_correlation_by_scene": by_scene,
        "movement_size": size, "lag_frames": lag, "lag_frames_by_scene": lags,
    }  # fmt: skip


def _closure_rows(bench: Bench, section: Section, scenes: list[Scene], scores: list[Scores]) -> None:
    """Rows on closures, and the numbers of how the truth follows the sound."""
    shut, total = np.sum(
        [
            closures_shut(s.opening, scene.speech.closures, bench.fps)
            for scene, s in zip(scenes, scores, strict=True)
        ],
        axis=0,
    ).tolist()
    true_shut = sum(
        closures_shut(s.true_opening, scene.speech.closures, bench.fps)[0]
        for scene, s in zip(scenes, scores, strict=True)
    )
    wrong, plainly = np.sum([wrongly_shut(s.opening, s.true_opening) for s in scores], axis=0).tolist()
    section.at_least(
        "Closures (m, b, p) shut",
        100 * shut / max(total, 1),
        90,
        " %",
        1,
        f"{shut} of {total} show a shut mouth on a frame of the closure; the drawn truth {true_shut}",
    )
    section.at_most(
        "Plainly open in the truth, shut in the output",
        100 * wrong / max(plainly, 1),
        5,
        " %",
        1,
        f"{wrong} of {plainly} frames; this evaluation's own target: closures mean little if all is shut",
    )
    heard = [
        (loudness(scene.speech.samples, SAMPLE_RATE, bench.fps, len(s.opening)), s.true_opening)
        for scene, s in zip(scenes, scores, strict=True)
    ]
    spoken = [correlation(*pair) for pair in heard]
    spoken_fast = [correlation(*(syllables(curve, bench.fps) for curve in pair)) for pair in heard]
    section.numbers |= {
        "closures_shut": shut, "closures": total, "closures_shut_in_truth": true_shut,
        "open_frames_shut": wrong, "open_frames": plainly, "truth_follows_loudness": float(np.mean(spoken)),
        "truth_follows_syllables": float(np.mean(spoken_fast)),
    }  # fmt: skip


def _through_vae(bench: Bench, scenes: list[Scene]) -> Scores:
    """Scores of drawn pictures sent through VAE and JPEG alone."""
    scores = []
    for scene in scenes[:8]:
        frames = round(scene.speech.seconds * bench.fps)
        for first in np.linspace(0, frames - 1, CEILING_FRAMES).astype(int).tolist():
            truth, _ = bench.judge.truth(scene, first, 1)
            picture = truth[0].mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
            scores.append(bench.judge.score(scene, first, bench.path.through_vae(picture)[None]))
    return Scores.cat(scores)


def _moments(bench: Bench, scene: Scene, pictures: Picture) -> list[Moment]:
    """Frames of a scene that tell most: each mouth shape where it is plainest, and a blink."""
    frames = np.arange(len(pictures))
    mouth = scene.speech.mouth[np.minimum(frames * TRACK_RATE // bench.fps, len(scene.speech.mouth) - 1)]
    value = {name: mouth[:, i] for i, name in enumerate(CHANNELS)}
    eyelid = bench.material.states(scene, 0, len(pictures), bench.fps).eyelid.cpu().numpy()
    plainest = {
        "m, b, p": value["lips_pressed"],
        "a": value["mouth_open"] - value["mouth_round"],
        "o, u": value["mouth_round"] * (0.3 + value["mouth_open"]),
        "e, i": value["mouth_width"] * (0.3 + value["mouth_open"]),
        "f, v": value["teeth"] * (value["mouth_open"] < 0.25),
        "blink": eyelid,
    }
    moments = []
    for label, score in plainest.items():
        frame = int(np.argmax(score))
        truth, _ = bench.judge.truth(scene, frame, 1)
        drawn = truth[0].mul(255).round().byte().permute(1, 2, 0).cpu().numpy()
        moments.append(Moment(label, drawn, pictures[frame]))
    return moments


def _strip(bench: Bench, scene: Scene, pictures: Picture) -> list[tuple[str, list[Picture]]]:
    """Mouths of the clip that moves most, frame by frame, twice as large: drawn, then made."""
    count = bench.path.clip_frames
    mouth = scene.speech.mouth[np.arange(len(pictures)) * TRACK_RATE // bench.fps, 0]
    clips = mouth[: len(mouth) // count * count].reshape(-1, count)
    first = int(np.argmax(clips.std(axis=1))) * count
    truth, state = bench.judge.truth(scene, first, count)
    boxes = mouth_box(bench.judge.renderer, state)
    rows = []
    for title, batch in (
        ("drawn truth", truth),
        ("output", bench.judge.tensor(pictures[first : first + count])),
    ):
        mouths = crop_mouth(batch, boxes).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        rows.append((title, [np.repeat(np.repeat(mouth, 2, axis=0), 2, axis=1) for mouth in mouths]))
    return rows
