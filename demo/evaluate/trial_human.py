"""Recorded human speech: nobody knows the right mouth, but it must move with the voice."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.evaluate.bench import Bench
from demo.evaluate.material import Scene, Speech
from demo.evaluate.path import Picture
from demo.evaluate.scores import Curve, best_lag, lag_correlations, loudness, peak_rate
from demo.evaluate.table import Section

#: Of what the drawn truth reaches on synthetic speech, the share that counts as following the loudness.
FOLLOWS = 0.7
#: Largest distance of the two rates in Hz.
SAME_RATE = 1.5
MAX_LAG = 3


def run(bench: Bench, folder: Path, truth_follows: float) -> Section:
    """folder: of `.wav` files. truth_follows: correlation of the truth with synthetic speech's loudness."""
    section = Section("Human speech")
    recordings = sorted(folder.glob("*.wav")) if folder.is_dir() else []
    if not recordings:
        section.told(
            "No recordings", str(folder.name), "the folder with recorded speech is absent: not measured"
        )
        return section
    for number, recording in enumerate(recordings):
        samples, rate = read_wav(recording)
        samples = samples[: int(bench.scale.human_seconds * rate)]
        pictures, opening = _play(bench, number, samples, rate)
        envelope = loudness(samples, rate, bench.fps, len(opening))
        _rows(section, recording.stem, opening, envelope, bench.fps, truth_follows)
        section.sheets.setdefault("human", []).append(
            (recording.stem, {"loudness": envelope, "output": opening})
        )
        section.sheets.setdefault("animation", pictures)
    return section


def read_wav(path: Path) -> tuple[NDArray[np.float32], int]:
    """Mono float32 samples and the rate of a 16 bit PCM file. ValueError for another kind."""
    with wave.open(str(path)) as file:
        if file.getsampwidth() != 2:
            raise ValueError(f"{path}: {8 * file.getsampwidth()} bit samples; 16 are read")
        values = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
        return values.mean(axis=1, dtype=np.float32) / 32768, file.getframerate()


def _play(bench: Bench, number: int, samples: NDArray[np.float32], rate: int) -> tuple[Picture, Curve]:
    """The recording at its own rate, as a browser may send it; the worker resamples."""
    material = bench.material
    rest = np.zeros((1, 6), np.float32)  # the truth is not known; head and hands are
    speech = Speech(samples, rest, np.zeros((0, 2)), "human")
    scene = Scene(number % len(material.names), material.poses[number % len(material.poses)], speech)
    pictures, openings = [], []
    for made in bench.play(scene, rate=rate):
        assert made.pictures is not None
        state = material.states(scene, made.first, made.count, bench.fps)
        openings.append(bench.judge.opening(scene, bench.judge.tensor(made.pictures), state))
        pictures.append(made.pictures)
    return np.concatenate(pictures), np.concatenate(openings)


def _rows(
    section: Section, name: str, opening: Curve, envelope: Curve, fps: int, truth_follows: float
) -> None:
    lagged = lag_correlations(opening, envelope, MAX_LAG)
    follows, lag = float(lagged.max()), best_lag(lagged)
    mouth, voice = peak_rate(opening, fps), peak_rate(envelope, fps)
    section.at_least(
        f"{name}: opening follows loudness, correlation",
        follows,
        round(FOLLOWS * truth_follows, 2),
        digits=3,
        note=f"at lag {lag:+d} frames; the target is {FOLLOWS:g} of what the drawn truth reaches on "
        f"synthetic speech ({truth_follows:.2f}), since vowels and not loudness alone open a mouth",
    )
    section.judged(
        f"{name}: rate of the mouth, of the voice",
        f"{mouth:.1f}, {voice:.1f} Hz",
        f"within {SAME_RATE:g} Hz",
        abs(mouth - voice) <= SAME_RATE,
        "peaks of the modulation spectra of opening and loudness: the syllable rate",
    )
    section.numbers[name] = {
        "loudness_correlation": follows, "lag_frames": lag, "mouth_rate_hz": mouth, "voice_rate_hz": voice,
        "widest_opening": float(opening.max()),
    }  # fmt: skip
