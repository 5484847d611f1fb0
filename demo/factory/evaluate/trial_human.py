"""Recorded human speech. Nobody knows the right mouth, but it must move with the voice."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from demo.factory.evaluate.bench import Bench
from demo.factory.evaluate.material import Scene, Speech
from demo.factory.evaluate.path import Picture
from demo.factory.evaluate.scores import (
    Curve,
    best_lag,
    correlation,
    lag_correlations,
    loudness,
    peak_rate,
    syllables,
)
from demo.factory.evaluate.table import Section

#: Share of the drawn truth's correlation on synthetic speech that counts as following the loudness.
FOLLOWS = 0.7
MAX_LAG = 3


def run(bench: Bench, folder: Path, truth_follows: tuple[float, float]) -> Section:
    """Play the recordings and compare the mouth with their loudness.

    Args:
        bench: the path and its material.
        folder: folder of `.wav` files.
        truth_follows: the truth's correlation with synthetic speech's loudness, whole and at the rates of
            syllables alone.
    """
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
    """Mono float32 samples (n,) and the rate of a 16 bit PCM file.

    Raises:
        ValueError: the file is of another kind.
    """
    with wave.open(str(path)) as file:
        if file.getsampwidth() != 2:
            raise ValueError(f"{path}: {8 * file.getsampwidth()} bit samples; 16 are read")
        values = np.frombuffer(file.readframes(file.getnframes()), "<i2").reshape(-1, file.getnchannels())
        return values.mean(axis=1, dtype=np.float32) / 32768, file.getframerate()


def _play(bench: Bench, number: int, samples: NDArray[np.float32], rate: int) -> tuple[Picture, Curve]:
    """Play a recording at its own rate, as a browser may send it. The worker resamples it."""
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


def _by_chance(opening: Curve, envelope: Curve, fps: int) -> float:
    """The largest correlation of two curves shifted by a second or more against each other, all around."""
    shifts = range(fps, len(opening) - fps + 1)
    return max((correlation(opening, np.roll(envelope, shift)) for shift in shifts), default=0.0)


def _rows(
    section: Section,
    name: str,
    opening: Curve,
    envelope: Curve,
    fps: int,
    truth_follows: tuple[float, float],
) -> None:
    lagged = lag_correlations(opening, envelope, MAX_LAG)
    follows, lag = float(lagged.max()), best_lag(lagged)
    fast, fast_envelope = syllables(opening, fps), syllables(envelope, fps)
    lagged = lag_correlations(fast, fast_envelope, MAX_LAG)
    follows_fast, fast_lag = float(lagged.max()), best_lag(lagged)
    chance = _by_chance(fast, fast_envelope, fps)
    mouth, voice = peak_rate(opening, fps), peak_rate(envelope, fps)
    section.at_least(
        f"{name}: opening follows loudness, correlation",
        follows,
        round(FOLLOWS * truth_follows[0], 2),
        digits=3,
        note=f"at lag {lag:+d} frames; the target is {FOLLOWS:g} of the drawn truth's correlation on "
        f"synthetic speech ({truth_follows[0]:.2f}), since vowels and not loudness alone open a mouth",
    )
    section.at_least(
        "… syllable by syllable",
        follows_fast,
        round(chance, 2),
        digits=3,
        note=f"movement at 2 to 8 Hz alone, at lag {fast_lag:+d} frames; the target is the most that chance "
        "reaches, the two shifted by a second or more; the drawn truth has "
        f"{truth_follows[1]:.2f} on synthetic speech",
    )
    section.told(
        "… rate of the mouth, of the voice",
        f"{mouth:.1f}, {voice:.1f} Hz",
        "peaks of the modulation spectra of opening and loudness; broad ones, so told and not judged",
    )
    section.numbers[name] = {
        "loudness_correlation": follows, "lag_frames": lag, "syllable_correlation": follows_fast,
        "syllable_lag_frames": fast_lag, "mouth_rate_hz": mouth, "voice_rate_hz": voice,
        "widest_opening": float(opening.max()),
    }  # fmt: skip
