"""Sound for the tools: WAV files, and a synthetic voice where there is no recording."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.messages import Samples


class SoundError(ValueError):
    """A sound file cannot be used. The text names it and says why."""


def read_sound(path: Path, rate: int = SAMPLE_RATE) -> Samples:
    """A sound file as mono float32 at `rate` Hz, shape (samples,).

    WAV with integers of 8, 16, 24 or 32 bits needs no package. Other files need `soundfile`.

    Raises:
        SoundError: the file cannot be used.
    """
    try:
        samples, own_rate = _read_wav(path)
    except (wave.Error, EOFError) as error:
        samples, own_rate = _read_other(path, error)
    except OSError as error:
        raise SoundError(f"{path}: {error.strerror}") from error
    if own_rate == rate or not len(samples):
        return samples
    import soxr

    return np.asarray(soxr.resample(samples, own_rate, rate), np.float32)


def _read_wav(path: Path) -> tuple[Samples, int]:
    with wave.open(str(path)) as file:
        width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
        data = np.frombuffer(file.readframes(file.getnframes()), np.uint8)
    data = data[: len(data) // (width * channels) * width * channels].reshape(-1, width)
    if width == 1:
        values = (data[:, 0].astype(np.float32) - 128) / 128
    else:  # little-endian; the sample's bytes become the upper ones of an int32
        wide = np.zeros((len(data), 4), np.uint8)
        wide[:, 4 - width :] = data
        values = wide.view("<i4")[:, 0].astype(np.float32) / 2**31
    return values.reshape(-1, channels).mean(axis=1, dtype=np.float32), rate


def _read_other(path: Path, error: Exception) -> tuple[Samples, int]:
    try:
        import soundfile
    except ImportError:
        raise SoundError(
            f"{path}: not an integer WAV file ({error}); for others: pip install soundfile"
        ) from None
    try:
        values, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except RuntimeError as reason:
        raise SoundError(f"{path}: not a sound file: {reason}") from reason
    return values.mean(axis=1, dtype=np.float32), int(rate)


def write_wav(path: Path, samples: Samples, rate: int = SAMPLE_RATE) -> None:
    """Write mono float samples in −1..1 as 16 bit WAV."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def synthetic_voice(seconds: float, *, seed: int = 0, rate: int = SAMPLE_RATE) -> Samples:
    """A voice-like sound, shape (seconds × rate,): vowels of a buzzing source, with pauses between them.

    The source is a pulse train of falling pitch. A vowel is a pair of resonances (formants), the means of
    male speakers of Peterson and Barney 1952. There are no words, but a mouth has something to move to.
    """
    rng = np.random.default_rng(seed)
    vowels = [(730, 1090), (270, 2290), (300, 870), (530, 1840), (570, 840)]
    pieces: list[Samples] = []
    total = 0
    while total < seconds * rate:
        length = int(rng.uniform(0.12, 0.3) * rate)
        t = np.arange(length) / rate
        pitch = rng.uniform(105, 150) * (1 - 0.15 * t / t[-1])
        phase = np.cumsum(pitch) / rate
        first, second = vowels[rng.integers(len(vowels))]
        sound = np.zeros(length)
        for harmonic in range(1, 30):
            frequency = harmonic * pitch
            gain = sum(1 / (1 + ((frequency - formant) / 90) ** 2) for formant in (first, second))
            sound += gain * np.sin(2 * np.pi * harmonic * phase)
        sound *= np.abs(np.sin(np.pi * t / t[-1])) ** 0.5 * 0.3 / max(1e-9, np.abs(sound).max())
        pause = int(rng.choice([0.02, 0.05, 0.3], p=[0.5, 0.35, 0.15]) * rate)
        pieces += [sound.astype(np.float32), np.zeros(pause, np.float32)]
        total += length + pause
    return np.concatenate(pieces)[: round(seconds * rate)]
