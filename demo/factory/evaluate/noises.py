"""Sounds of a quiet room that are no speech, and the gain that a browser puts on its microphone.

All are synthetic and seeded, so a figure can be had again anywhere.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocol.wire.clock import SAMPLE_RATE

Sound = NDArray[np.float32]
Waves = NDArray[np.float64]

#: The sounds by name.
KINDS = ("typing", "fan", "music", "breath")
#: Level that the microphone's gain aims at, in dBFS, and the most that it adds, in dB.
#: WebRTC's adaptive digital gain control has about these (`AGC2`: target headroom and `max_gain_db` 30).
AGC_TARGET_DB, AGC_MOST_DB = -23.0, 30.0


def noise(kind: str, seconds: float, level_db: float, seed: int) -> Sound:
    """A sound of one of `KINDS`, float32 (n,) at 16 kHz.

    Args:
        kind: its name. typing has keys and their releases, 5 to 9 a second. fan has air (noise that falls
            with frequency) and the blades' tone. music has chords of four voices with beats. breath has noise
            of the mouth's resonances, in and out every 3 to 4 s.
        seconds: length.
        level_db: root mean square in dBFS of the parts that are not silent.
        seed: of the randomness.

    Raises:
        KeyError: there is no such kind.
    """
    rng = np.random.default_rng(seed)
    count = round(seconds * SAMPLE_RATE)
    made = {"typing": _typing, "fan": _fan, "music": _music, "breath": _breath}[kind](rng, count)
    blocks = made[: count // 160 * 160].reshape(-1, 160)
    levels = np.sqrt(np.mean(blocks**2, axis=1))
    loud = levels > 0.1 * levels.max()
    scale = 10 ** (level_db / 20) / np.sqrt(np.mean(levels[loud] ** 2))
    sound: Sound = np.clip(made * scale, -1, 1).astype(np.float32)
    return sound


def automatic_gain(samples: Sound, seconds: float = 1.0) -> Sound:
    """The samples as a browser's automatic gain makes them: every sound grows towards `AGC_TARGET_DB`.

    Harsher than a browser's, which holds its gain while it hears no speech.

    Args:
        samples: float32 (n,) at 16 kHz.
        seconds: over which the level is followed.
    """
    power = np.square(samples, dtype=np.float64)
    kernel = np.exp(-np.arange(round(3 * seconds * 100)) / (seconds * 100))
    blocks = np.add.reduceat(power, np.arange(0, len(power), 160)) / 160
    level = np.convolve(blocks, kernel / kernel.sum())[: len(blocks)]
    gain = np.minimum(AGC_TARGET_DB - 10 * np.log10(level + 1e-12), AGC_MOST_DB)
    along = np.interp(np.arange(len(power)), np.arange(len(blocks)) * 160, 10 ** (np.maximum(gain, 0) / 20))
    return np.clip(samples * along, -1, 1).astype(np.float32)


def _shaped(rng: np.random.Generator, count: int, curve: Waves, at: Waves) -> Waves:
    """Noise whose spectrum has amplitudes `curve` at frequencies `at` (Hz)."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    return np.fft.irfft(spectrum * np.interp(np.fft.rfftfreq(count, 1 / SAMPLE_RATE), at, curve), count)


def _typing(rng: np.random.Generator, count: int) -> Waves:
    made = np.zeros(count + SAMPLE_RATE)
    at = 0.0
    while (start := round(at * SAMPLE_RATE)) < count:
        for delay, loud in ((0.0, 1.0), (rng.uniform(0.06, 0.11), 0.5)):
            length = round(rng.uniform(0.012, 0.03) * SAMPLE_RATE)
            click = rng.standard_normal(length) * np.exp(-np.arange(length) / (0.15 * length))
            tone = np.sin(2 * np.pi * rng.uniform(300, 2500) * np.arange(length) / SAMPLE_RATE)
            first = start + round(delay * SAMPLE_RATE)
            decay = np.exp(-np.arange(length) / (0.3 * length))
            made[first : first + length] += loud * rng.uniform(0.4, 1.0) * (click + 0.6 * tone * decay)
        at += rng.uniform(0.11, 0.2) if rng.random() < 0.9 else rng.uniform(0.4, 1.2)
    return made[:count]


def _fan(rng: np.random.Generator, count: int) -> Waves:
    air = _shaped(rng, count, np.array([0.2, 1.0, 0.5, 0.15, 0.03]), np.array([20.0, 120, 500, 2000, 8000]))
    seconds = np.arange(count) / SAMPLE_RATE
    blade = sum(np.sin(2 * np.pi * 95 * k * seconds + rng.uniform(0, 6)) / k**1.5 for k in range(1, 6))
    hum: Waves = 0.4 * np.asarray(blade) * (1 + 0.1 * np.sin(2 * np.pi * 0.7 * seconds))
    hum += air / np.std(air)
    return hum


def _music(rng: np.random.Generator, count: int) -> Waves:
    made = np.zeros(count)
    length = round(0.5 * SAMPLE_RATE)
    seconds = np.arange(length) / SAMPLE_RATE
    scale = np.array([0, 2, 4, 5, 7, 9, 11])
    for beat, start in enumerate(range(0, count, length)):
        root = int(scale[(beat // 4 * 3) % 7])
        part = np.zeros(length)
        for step in (0, 4, 7, int(scale[rng.integers(7)]) + 12):
            pitch = 220.0 * 2 ** ((root + step) / 12)
            for k in range(1, 6):
                part += np.sin(2 * np.pi * pitch * k * seconds) / k**1.3
        part *= np.minimum(1, seconds / 0.01) * np.exp(-seconds / 0.5)
        drum = np.sin(2 * np.pi * 60 * seconds) * np.exp(-seconds / 0.08)
        hat = rng.standard_normal(length) * np.exp(-((seconds - 0.25) % 0.5) / 0.02)
        made[start : start + length] += (part / 4 + drum + 0.15 * hat)[: count - start]
    return made


def _breath(rng: np.random.Generator, count: int) -> Waves:
    air = _shaped(
        rng, count, np.array([0.05, 0.4, 1.0, 0.5, 0.8, 0.2, 0.05]),
        np.array([50.0, 400, 800, 1500, 2500, 4500, 8000]),
    )  # fmt: skip
    envelope = np.zeros(count)
    at = 0.3
    while at < count / SAMPLE_RATE:
        for length, loud in ((1.0, 1.0), (1.3, 0.7)):
            first, size = round(at * SAMPLE_RATE), round(length * SAMPLE_RATE)
            rise = loud * np.sin(np.linspace(0, np.pi, size)) ** 2
            envelope[first : first + size] += rise[: max(0, count - first)]
            at += length + 0.2
        at += rng.uniform(0.6, 1.4)
    return air * envelope
