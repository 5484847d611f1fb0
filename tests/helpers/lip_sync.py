"""Files of a speaking face, read by PyAV: their sound, their pictures, and how far apart both are."""

from __future__ import annotations

import io

import numpy as np

from protocol.wire.clock import SAMPLE_RATE

#: Seconds of the bursts of `bursts`. They begin and end with frames.
BURSTS = [(0.75, 1.0), (1.5, 1.75), (2.25, 2.5)]
#: Seconds that rounding and a resampler's delay stay below.
LEAST_GAP = 0.03


def bursts(peak: float = 0.5) -> np.ndarray:
    """3 s of silence with bursts of a tone, float32, shape (n,), at SAMPLE_RATE."""
    t = np.arange(3 * SAMPLE_RATE) / SAMPLE_RATE
    on = np.zeros(len(t))
    for begin, end in BURSTS:
        on[round(begin * SAMPLE_RATE) : round(end * SAMPLE_RATE)] = 1
    return (peak * on * np.sin(2 * np.pi * 437 * t)).astype(np.float32)


def sound_of(content: bytes) -> tuple[float, np.ndarray]:
    """Time of a file's first sample in seconds, and its sound, float32, shape (n,), at SAMPLE_RATE.

    Times in files are rounded, so only a real gap becomes silence.
    """
    import av

    pieces: list[np.ndarray] = []
    begin, length = 0.0, 0
    with av.open(io.BytesIO(content)) as file:
        resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
        for block in file.decode(audio=0):
            at = float((block.pts or 0) * (block.time_base or 0))
            begin = begin if pieces else at
            missing = round((at - begin) * SAMPLE_RATE) - length
            if missing > LEAST_GAP * SAMPLE_RATE:
                pieces.append(np.zeros(missing, np.float32))
                length += missing
            for part in resampler.resample(block):
                pieces.append(part.to_ndarray()[0])
                length += len(pieces[-1])
    return begin, np.concatenate(pieces)


def pictures_of(content: bytes) -> tuple[list[float], np.ndarray]:
    """Times of a file's pictures in seconds, and the pictures, uint8, shape (n, height, width, 3)."""
    import av

    with av.open(io.BytesIO(content)) as file:
        frames = list(file.decode(video=0))
    return [float(frame.time or 0) for frame in frames], np.stack(
        [f.to_ndarray(format="rgb24") for f in frames]
    )


def offsets(content: bytes) -> list[float]:
    """Seconds by which the drawn face of the stand-ins shows each burst of a file later than it is heard."""
    (begin, sound), (times, pictures) = sound_of(content), pictures_of(content)
    size = pictures.shape[1]
    # the mouth is dark red where the skin is light
    mouth = pictures[:, size * 62 // 100 : size * 66 // 100, size * 48 // 100 : size * 52 // 100, 1]
    is_open = mouth.mean((1, 2)) < 130
    loud = np.convolve(np.abs(sound), np.ones(48) / 48, "same") > 0.08
    heard = [begin + at / SAMPLE_RATE for at in np.flatnonzero(loud[1:] & ~loud[:-1])]
    seen = [times[i] for i in range(1, len(times)) if is_open[i] and not is_open[i - 1]]
    assert len(heard) == len(seen) == len(BURSTS), (heard, seen)
    return [b - a for a, b in zip(heard, seen, strict=True)]
