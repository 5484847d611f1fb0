"""Lip closures: voiceless lip stops placed on the quiet of the waveform.

espeak-ng times a stop by its burst and counts the closure to the sound before. flite and festival count
closure and burst as one phone. The eye wants the closure, which is the quiet before the burst.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from protocol.wire.clock import SAMPLE_RATE

_HOP = 40  # 2.5 ms
_SEARCH = 0.13  # seconds before the phone's own start
_QUIET = 0.08  # of the loudest within 0.2 s
_SHORTEST = 0.015
RELEASE = "ʰ"

Timed = tuple[float, float, str]


def refine_closures(audio: NDArray[np.float32], phones: Sequence[Timed]) -> list[Timed]:
    """Phones with each [p] narrowed to the quiet before its burst. The rest of it becomes a release "ʰ".

    A [p] next to a pause, or without at least 15 ms of quiet, keeps its times.
    """
    level = _envelope(audio)
    out: list[Timed] = []
    for start, end, phone in phones:
        previous = out[-1] if out else None
        if phone.rstrip("ʲʰhː") != "p" or previous is None or previous[2] == "_":
            out.append((start, end, phone))
            continue
        quiet = _longest_quiet(level, max(start - _SEARCH, previous[0] + 0.02), end)
        if quiet is None:
            out.append((start, end, phone))
            continue
        shut, burst = quiet[0], min(quiet[1], end)
        out[-1] = (previous[0], min(max(shut, previous[0] + 0.01), start), previous[2])
        if out[-1][1] < shut:  # the phone began before the quiet: it is still the closing movement
            out[-1] = (previous[0], shut, previous[2])
        out.append((out[-1][1], burst, phone))
        if end - burst > 0.005:
            out.append((burst, end, RELEASE))
    return out


def _envelope(audio: NDArray[np.float32]) -> NDArray[np.float64]:
    """RMS of 5 ms every 2.5 ms."""
    squares = np.concatenate([[0.0], np.cumsum(np.asarray(audio, dtype=np.float64) ** 2)])
    at = np.arange(0, len(audio), _HOP)
    low, high = np.maximum(at - _HOP, 0), np.minimum(at + _HOP, len(audio))
    level: NDArray[np.float64] = np.sqrt((squares[high] - squares[low]) / np.maximum(high - low, 1))
    return level


def _longest_quiet(level: NDArray[np.float64], start: float, end: float) -> tuple[float, float] | None:
    """The longest quiet stretch (seconds) between two times, if it lasts 15 ms."""
    scale = SAMPLE_RATE / _HOP
    first, last = int(start * scale), min(len(level), int(end * scale) + 1)
    around = level[max(0, first - int(0.1 * scale)) : last + int(0.1 * scale)]
    if last <= first or len(around) == 0:
        return None
    quiet = level[first:last] < _QUIET * around.max()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], quiet.astype(np.int8), [0]])))
    if len(edges) == 0:
        return None
    starts, stops = edges[::2], edges[1::2]
    best = int(np.argmax(stops - starts))
    shut, burst = (first + starts[best]) / scale, (first + stops[best]) / scale
    return (shut, burst) if burst - shut >= _SHORTEST else None
