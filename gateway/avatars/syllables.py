"""A second of made-up speech, to which a new avatar moves its mouth in its preview."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocol.wire.clock import SAMPLE_RATE

#: The voice's pitch in Hz, and each syllable's length in seconds.
_PITCH, _SYLLABLE = 130.0, 0.25
#: Centres of the first three formants of some vowels, in Hz (Peterson and Barney 1952, men's means), and the
#: bandwidth of each.
_VOWELS = ((730, 1090, 2440), (530, 1840, 2480), (570, 840, 2410), (660, 1720, 2410))
_WIDTHS = (80, 100, 120)


def syllables(seconds: float) -> npt.NDArray[np.float32]:
    """Mono sound at 16 kHz, float32 (n,) in -1..1: open vowels, each of which begins with shut lips."""
    parts = []
    for number in range(max(1, round(seconds / _SYLLABLE))):
        parts.append(_syllable(_VOWELS[number % len(_VOWELS)], _PITCH * (1.1 - 0.05 * (number % 4))))
    return np.concatenate(parts)[: round(seconds * SAMPLE_RATE)].astype(np.float32)


def _syllable(formants: tuple[int, ...], pitch: float) -> npt.NDArray[np.float64]:
    """A pulse train whose partials are weighted by the formants' resonances, faded in and out."""
    time = np.arange(round(_SYLLABLE * SAMPLE_RATE)) / SAMPLE_RATE
    partials = np.arange(1, int(SAMPLE_RATE / 2 / pitch)) * pitch
    weights = np.zeros_like(partials)
    for centre, width in zip(formants, _WIDTHS, strict=True):
        weights += 1.0 / (1.0 + ((partials - centre) / width) ** 2)
    weights /= np.sqrt(partials)  # a voice's source has less of the high partials
    sound = (weights[:, None] * np.sin(2 * np.pi * partials[:, None] * time)).sum(0)
    envelope = np.sin(np.pi * np.clip(time / _SYLLABLE, 0, 1)) ** 0.6
    shaped: npt.NDArray[np.float64] = 0.3 * sound / np.abs(sound).max() * envelope
    return shaped
