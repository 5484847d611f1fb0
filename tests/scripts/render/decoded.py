"""A film, decoded again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Decoded:
    """Pictures and sound of a file, each with its times in seconds."""

    times: list[float]
    pictures: list[npt.NDArray[np.uint8]]
    rate: int
    #: float32 (frames, channels).
    sound: npt.NDArray[np.float32]
    sound_begins: float
    codecs: tuple[str, str]


def decode(path: Path) -> Decoded:
    """Decode both tracks as a player does."""
    with av.open(str(path)) as file:
        pictures = [(_time(frame), frame.to_ndarray(format="rgb24")) for frame in file.decode(video=0)]
    with av.open(str(path)) as file:
        codecs = (file.streams.video[0].codec_context.name, file.streams.audio[0].codec_context.name)
        rate = int(file.streams.audio[0].rate)
        end = float((file.streams.audio[0].duration or 0) * (file.streams.audio[0].time_base or 0))
        to_float = av.AudioResampler(format="fltp")
        parts: list[Any] = []
        begins = float("nan")
        for frame in file.decode(audio=0):
            begins = _time(frame) if not parts else begins
            parts += [part.to_ndarray().T for part in to_float.resample(frame)]
    sound = np.concatenate(parts).astype(np.float32)
    if end:  # a player stops at the track's end: AAC fills its last block up
        sound = sound[: round(end * rate)]
    return Decoded(
        [time for time, _ in pictures], [each for _, each in pictures], rate, sound, begins, codecs
    )


def lag(sound: npt.NDArray[np.float32], of: npt.NDArray[np.float32], rate: int) -> float:
    """Seconds by which `sound` lies behind `of`, by their cross-correlation. Both (samples,)."""
    size = 2 * max(len(sound), len(of))
    spectrum = np.fft.rfft(sound, size) * np.conj(np.fft.rfft(of, size))
    best = int(np.argmax(np.fft.irfft(spectrum, size)))
    return (best if best < size // 2 else best - size) / rate


def _time(frame: Any) -> float:
    return float(frame.pts * frame.time_base)
