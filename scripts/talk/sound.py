"""Sound for the tools: sound files of every kind, and a synthetic voice where there is no recording."""

from __future__ import annotations

import logging
import shlex
import stat
import wave
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from protocol.model.file_damage import stand_in_error
from protocol.wire.browser import MAX_AMPLITUDE
from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.messages import Samples
from scripts.talk.wav import BLOCK_FRAMES, Values, WavError, blocks, find_sound

if TYPE_CHECKING:
    import soundfile

logger = logging.getLogger(__name__)

#: Longest sound that is read, in seconds. At 16 kHz it takes 0.9 GB of memory.
MAX_SECONDS = 4 * 3600

#: Rates that are read, in frames a second.
MIN_RATE, MAX_RATE = 1000, 768_000

#: Kinds of files: where a mark stands, the mark, what people call it, and whether `soundfile` reads it.
_KINDS = (
    (0, b"fLaC", "FLAC", True),
    (28, b"OpusHead", "Opus", True),
    (0, b"OggS", "Ogg", True),
    (0, b"ID3", "MP3", True),
    *((0, bytes([0xFF, byte]), "MP3", True) for byte in (0xFB, 0xFA, 0xF3, 0xF2)),
    *((0, bytes([0xFF, byte]), "AAC", False) for byte in (0xF1, 0xF9)),
    (8, b"AIFF", "AIFF", True),
    (8, b"AIFC", "AIFF", True),
    (0, b".snd", "AU", True),
    (0, b"caff", "CAF", True),
    (0, b"riff", "Wave64", True),
    (8, b"WAVE", "WAV", True),
    (8, b"AVI ", "AVI", False),
    (4, b"ftypM4A", "M4A", False),
    (4, b"ftyp", "MP4", False),
    (0, b"\x1aE\xdf\xa3", "WebM or Matroska", False),
    (0, b"#!AMR", "AMR", False),
    (0, b"0&\xb2u\x8ef\xcf\x11", "WMA", False),
    (0, b"MAC ", "Monkey's Audio", False),
    (0, b"wvpk", "WavPack", False),
)


class SoundError(ValueError):
    """A sound file cannot be used. The text names it and says why."""


def read_sound(path: Path, rate: int = SAMPLE_RATE) -> Samples:
    """A sound file as mono float32 at `rate` Hz, shape (samples,), the mean of its channels.

    WAV needs no package, with integers, floating-point numbers, A-law or mu-law. FLAC, Ogg, Opus, MP3, AIFF
    and others need `soundfile`. Samples that are no numbers are silence, and the log says how many there are.

    Raises:
        SoundError: the file cannot be used. The message says why, and what to do.
    """
    with _sound_of(path) as (own_rate, parts):
        samples = _at_rate(_mono(checked_parts(path, parts, own_rate)), own_rate, rate)
    if not len(samples):
        raise SoundError(f"{path}: has no sound in it")
    return samples


def read_channels(path: Path) -> tuple[int, Values]:
    """A sound file as it is: its rate in Hz, and float32 (frames, channels). Kinds are those of `read_sound`.

    Raises:
        SoundError: the file cannot be used. The message says why, and what to do.
    """
    with _sound_of(path) as (rate, parts):
        blocks_of_it = list(checked_parts(path, parts, rate))
    if not sum(map(len, blocks_of_it)):
        raise SoundError(f"{path}: has no sound in it")
    return rate, np.concatenate(blocks_of_it)


@contextmanager
def _sound_of(path: Path) -> Iterator[tuple[int, Iterable[Values]]]:
    """The rate of a sound file, which is one that is read, and its sound in blocks."""
    try:
        _check_file(path)
        with _opened(path) as (rate, parts):
            if not MIN_RATE <= rate <= MAX_RATE:
                raise SoundError(f"{path}: its rate is {rate} Hz; {MIN_RATE} to {MAX_RATE} Hz are read")
            yield rate, parts
    except OSError as error:
        raise SoundError(f"{path}: {error.strerror or error}") from error


def _check_file(path: Path) -> None:
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise SoundError(f"{path}: is a folder, not a sound file")
    if not stat.S_ISREG(mode):
        raise SoundError(f"{path}: is not a file")
    stand_in = stand_in_error(path)
    if stand_in is not None:
        raise SoundError(stand_in)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[int, Iterable[Values]]]:
    """The rate of a sound file, and its sound in blocks, float32 (frames, channels)."""
    with path.open("rb") as stream:
        try:
            sound = find_sound(stream)
        except WavError as error:
            reason = str(error)
        else:
            if sound.frames > MAX_SECONDS * sound.rate > 0:  # before hours of it are read
                raise _too_long(path)
            yield sound.rate, blocks(stream, sound)
            return
    try:
        import soundfile
    except (ImportError, OSError):  # OSError: the package is there, and the library that it uses is not
        raise SoundError(_other_kind(path, reason, has_soundfile=False)) from None
    try:
        file = soundfile.SoundFile(path)
    except (RuntimeError, TypeError, ValueError) as error:  # soundfile's own are RuntimeErrors
        raise SoundError(_other_kind(path, reason, has_soundfile=True)) from error
    with file:
        try:
            yield file.samplerate, _read_blocks(file)
        except RuntimeError as error:
            raise SoundError(f"{path}: is damaged or cut short ({error}); copy it again") from error


def _read_blocks(file: soundfile.SoundFile) -> Iterator[Values]:
    # soundfile's own `blocks` asks for a length, which some kinds do not have.
    while len(part := file.read(BLOCK_FRAMES, dtype="float32", always_2d=True)):
        yield part


def _other_kind(path: Path, reason: str, *, has_soundfile: bool) -> str:
    """Why a file that is no plain WAV cannot be read, and what to do."""
    with path.open("rb") as stream:
        begin = stream.read(64)
    known = next((kind for kind in _KINDS if begin[kind[0] :].startswith(kind[1])), None)
    target = shlex.quote(f"{path.stem}.wav" if path.suffix.lower() != ".wav" else f"{path.stem}-16k.wav")
    convert = f"convert it: ffmpeg -i {shlex.quote(str(path))} -ac 1 -ar {SAMPLE_RATE} {target}"
    if known is None:
        return f"{path}: is of no kind of sound file that is known here; {convert}"
    _, _, name, by_soundfile = known
    if name == "WAV":
        reason = f"is WAV, but {reason}"
    else:
        reason = f"is {name}, which is not read here" if not by_soundfile else f"is {name}"
    if by_soundfile and has_soundfile:
        return f"{path}: {reason}, and is damaged or of a rare kind; {convert}"
    if by_soundfile:
        return f"{path}: {reason}; pip install soundfile, or {convert}"
    return f"{path}: {reason}; {convert}"


def _mono(parts: Iterable[Values]) -> Iterator[Samples]:
    """The mean of the channels, block by block."""
    return (part.mean(axis=1, dtype=np.float32) for part in parts)


def checked_parts(path: Path, parts: Iterable[Values], rate: int) -> Iterator[Values]:
    """The blocks of a file's sound, with silence for samples that are no numbers.

    Raises:
        SoundError: it is too long, or its samples are not in ±1.
    """
    total, bad = 0, 0
    for part in parts:
        finite = np.isfinite(part)
        if not finite.all():
            bad += int(part.size - finite.sum())
            part = np.where(finite, part, np.float32(0))  # noqa: PLW2901
        total += len(part)
        if total > MAX_SECONDS * rate:
            raise _too_long(path)
        peak = float(np.abs(part).max(initial=0))
        if peak > MAX_AMPLITUDE:
            raise SoundError(f"{path}: has samples of size {peak:.3g}, and full scale is 1; divide them")
        yield part
    if bad:
        logger.warning("%s: %d samples are no numbers and are played as silence", path, bad)


def _too_long(path: Path) -> SoundError:
    return SoundError(f"{path}: is longer than {MAX_SECONDS // 3600} hours; cut it")


def _at_rate(parts: Iterable[Samples], own_rate: int, rate: int) -> Samples:
    """The blocks as one, at another rate. Only the result is held in memory as a whole."""
    none = np.zeros(0, np.float32)
    if own_rate == rate:
        return np.concatenate([none, *parts])
    import soxr

    stream = soxr.ResampleStream(own_rate, rate, 1, dtype="float32")
    made = [stream.resample_chunk(part) for part in parts]
    return np.concatenate([none, *made, stream.resample_chunk(none, last=True)])


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
