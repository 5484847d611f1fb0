"""The face when nobody speaks: the mouth rests, blinks and breathing go on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from demo.factory.evaluate.bench import Bench
from demo.factory.evaluate.material import STILL, Scene
from demo.factory.evaluate.path import Picture
from demo.factory.evaluate.scores import OPEN, SHUT, Curve, correlation
from demo.factory.evaluate.table import Section
from protocol.wire.clock import SAMPLE_RATE

LATEST = 0.3
NOISE_DB, HUM_DB = -50.0, -45.0
EYELID_SHUT = 0.5
LIKE_LIFE = 0.8  # correlation with the drawn motion that counts as going on
KINDS = ("digital silence", "white noise −50 dBFS", "room hum")


def background(kind: str, count: int, seed: int) -> NDArray[np.float32]:
    """Samples float32 (count,) of one of `KINDS`.

    Room hum is 50 Hz mains and its harmonics up to 400 Hz, with low-passed noise 6 dB under them, as fans and
    transformers make it. It has −45 dBFS in all.
    """
    if kind == "digital silence":
        return np.zeros(count, np.float32)
    rng = np.random.default_rng(seed)
    white = rng.standard_normal(count)
    if kind != "room hum":
        return (white * 10 ** (NOISE_DB / 20)).astype(np.float32)
    seconds = np.arange(count) / SAMPLE_RATE
    tones = sum(
        np.sin(2 * np.pi * (50.0 * k * seconds + rng.uniform())) * rng.uniform(0.3, 1.0) / k
        for k in range(1, 9)
    )
    spectrum = np.fft.rfft(white) / (1.0 + (np.fft.rfftfreq(count, 1 / SAMPLE_RATE) / 200.0) ** 2)
    rumble = np.fft.irfft(spectrum, count)
    hum = _unit(np.asarray(tones)) + 0.5 * _unit(rumble)
    return (_unit(hum) * 10 ** (HUM_DB / 20)).astype(np.float32)


def _unit(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x / max(float(np.sqrt(np.mean(x * x))), 1e-12)


def run(bench: Bench) -> Section:
    """Play sentences that end in each kind of silence."""
    section = Section("Silence")
    spoken, quiet, curves = [], [], {}
    life: list[tuple[Curve, Curve, Curve, Curve]] = []
    for kind in KINDS:
        latest, worst = 0.0, 0.0
        for number in range(bench.scale.silence_scenes):
            scene, end = _scene(bench, kind, number)
            pictures = bench.pictures(scene)
            opening = _openings(bench, scene, pictures)
            seconds = np.arange(len(opening)) / bench.fps
            spoken.append(float(opening[seconds <= end].max()))
            after = opening[seconds > end + LATEST]
            quiet.append(float(np.mean(after < SHUT)))
            worst = max(worst, float(after.max()))
            last_open = np.flatnonzero((opening >= SHUT) & (seconds > end))
            latest = max(
                latest, float(seconds[last_open[-1]] + 1 / bench.fps - end) if len(last_open) else 0.0
            )
            if number == 0:
                curves[f"{kind} (speech ends at {end:.1f} s)"] = opening
            if kind == KINDS[0]:
                life.append(_life(bench, scene, pictures, round(end * bench.fps)))
        section.at_most(
            f"Shut after the end of speech, {kind}",
            latest,
            LATEST,
            " s",
            note=f"widest later reading {worst:.3f}",
        )
        section.numbers[kind] = {"shut_after_seconds": latest, "widest_later": worst}
    section.at_least("Frames shut from 0.3 s after the end on", 100 * float(np.mean(quiet)), 100, " %", 1)
    section.at_least(
        "Widest opening while speaking, least of scenes",
        min(spoken),
        OPEN,
        digits=3,
        note=f"under {SHUT} is shut, over {OPEN} plainly open: resting means something if speech opens it",
    )
    _life_rows(section, life)
    section.numbers |= {"frames_shut": float(np.mean(quiet)), "widest_while_speaking": spoken}
    section.sheets["silence"] = curves
    return section


def _scene(bench: Bench, kind: str, number: int) -> tuple[Scene, float]:
    """A sentence, then `silence_seconds` without speech. The background goes on throughout."""
    material = bench.material
    speech, end = material.sentence(material.voices[number % len(material.voices)], number)
    count = round((end + bench.scale.silence_seconds) * 2) * SAMPLE_RATE // 2  # whole clips
    samples = np.pad(speech.samples, (0, max(0, count - len(speech.samples))))
    samples = samples + background(kind, len(samples), number)
    scene = Scene(number % len(material.names), STILL, replace(speech, samples=samples))
    return scene, end


def _openings(bench: Bench, scene: Scene, pictures: Picture) -> Curve:
    parts = []
    for first in range(0, len(pictures), 24):
        made = bench.judge.tensor(pictures[first : first + 24])
        state = bench.material.states(scene, first, len(made), bench.fps)
        parts.append(bench.judge.opening(scene, made, state))
    return np.concatenate(parts)


def _life(bench: Bench, scene: Scene, pictures: Picture, start: int) -> tuple[Curve, Curve, Curve, Curve]:
    """Curves from frame `start` on: eyelid of output and truth, then breath of output and truth."""
    judge = bench.judge
    lid: list[Curve] = []
    true_lid: list[Curve] = []
    breath: list[Curve] = []
    true_breath: list[Curve] = []
    for first in range(start, len(pictures), 12):
        made = judge.tensor(pictures[first : first + 12])
        for name, low, seen, drawn in (("eyelid", 0.0, lid, true_lid), ("breath", -1.0, breath, true_breath)):
            readings = judge.reading(scene, first, made, name, low, 1.0)
            seen.append(readings[0])
            drawn.append(readings[1])
    joined = [np.concatenate(parts) for parts in (lid, true_lid, breath, true_breath)]
    return joined[0], joined[1], joined[2], joined[3]


def blinks(lid: Curve) -> int:
    """Number of blinks: rises of the lid over one half."""
    shut = lid > EYELID_SHUT
    return int(np.sum(shut[1:] & ~shut[:-1])) + int(bool(shut[:1].any()))


def _life_rows(section: Section, life: list[tuple[Curve, Curve, Curve, Curve]]) -> None:
    made, drawn = sum(blinks(curves[0]) for curves in life), sum(blinks(curves[1]) for curves in life)
    lid = float(np.mean([correlation(curves[0], curves[1]) for curves in life]))
    breath = float(np.mean([correlation(curves[2], curves[3]) for curves in life]))
    size = float(np.mean([np.std(curves[2]) / max(float(np.std(curves[3])), 1e-9) for curves in life]))
    note = "read by projection on the drawn difference between lids open and shut, shoulders down and up"
    if drawn:
        section.judged("Blinks go on: seen, drawn", f"{made}, {drawn}", "as many", made == drawn, note)
        section.at_least("Lids against truth: correlation", lid, LIKE_LIFE, digits=3)
    else:
        section.told("Blinks go on", "none drawn", "too short a silence to tell")
    section.at_least(
        "Breathing against truth: correlation",
        breath,
        LIKE_LIFE,
        digits=3,
        note=f"its size is {size:.2f} of the drawn",
    )
    section.numbers |= {
        "blinks": made, "blinks_in_truth": drawn, "lid_correlation": lid, "breath_correlation": breath,
        "breath_size": size,
    }  # fmt: skip
