"""Mouth tracks from timed phones: dominance blending, with lip closures that are reached in full.

Blending follows Cohen & Massaro, "Modeling coarticulation in synthetic visual speech" (1993): every sound's
target is weighted by a dominance that falls off exponentially before and after it. Anticipation is short (at
most 60 ms), because a streaming model cannot see the sound that causes it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from demo.factory.motion.visemes import CHANNELS, visemes
from protocol.wire.clock import SAMPLE_RATE

#: Start and end in seconds, and the phone in IPA. "_" is a pause.
Phone = tuple[float, float, str]
Doubles = NDArray[np.float64]

TRACK_RATE = 120  # Hz; 24, 12 and 8 divide it
ANTICIPATION, ANTICIPATION_DECAY = 0.060, 0.022  # seconds
CARRY_OVER, CARRY_OVER_DECAY = 0.140, 0.038
CLOSURE, CLOSURE_RAMP = 0.048, 0.040  # a closure lasts longer than a frame at 24 fps (41.7 ms)
REST_WITHIN = 0.120
PAUSE = 0.150  # shorter silences are blended like any other sound
OPENING_BEFORE_SPEECH = 0.030
LOUDNESS_GAIN = 0.15


def mouth_track(
    phones: Sequence[Phone], times: NDArray[np.float64], loudness: NDArray[np.float64] | None = None
) -> dict[str, NDArray[np.float32]]:
    """The figure's mouth at some moments.

    Args:
        phones: phones in order, without overlap. Silence stands before and after them and in gaps.
        times: moments (T,) in seconds.
        loudness: values (T,) from -1 to 1 of `loudness_track`. They open the mouth up to 15 % more or less.

    Returns:
        A float32 array (T,) for each name of `CHANNELS`.

    Raises:
        ValueError: a phone has no viseme.
    """
    times = np.asarray(times, dtype=np.float64)
    starts, ends, targets, weights, closed = _segments(phones)
    dominance = _dominance(times, starts, ends)
    hold, shape = dominance * weights[:, 0], dominance * weights[:, 1]
    mixed = hold @ targets / np.maximum(hold.sum(axis=1, keepdims=True), 1e-9)
    lips = shape @ targets[:, 1:3] / np.maximum(shape.sum(axis=1, keepdims=True), 1e-9)
    mixed[:, 1:3] = lips
    if loudness is not None:
        mixed[:, 0] *= 1.0 + LOUDNESS_GAIN * np.clip(loudness, -1.0, 1.0)
    apart, sealed = _closure_gate(times, starts[closed], ends[closed])
    mixed[:, [0, 3, 5]] *= apart[:, None]
    mixed[:, 4] = np.maximum(mixed[:, 4] * (1.0 - apart), 0.8 * sealed)
    mixed *= _speech_gate(times, phones)[:, None]
    low = np.array([0, -1, 0, 0, 0, 0])
    mixed = np.clip(np.where(np.abs(mixed) < 0.015, 0.0, mixed), low, 1.0)
    return {name: mixed[:, number].astype(np.float32) for number, name in enumerate(CHANNELS)}


def _segments(phones: Sequence[Phone]) -> tuple[Doubles, Doubles, Doubles, Doubles, NDArray[np.bool_]]:
    """Starts and ends (S,), targets (S, 6), weights (S, 2) of hold and shape, and closed (S,).

    Gaps are filled with pauses.
    """
    rows: list[tuple[float, float, str]] = []
    cursor = -10.0
    for start, end, phone in phones:
        if start - cursor > 1e-4:
            rows.append((cursor, start, "_"))
        if end > start:
            rows.append((start, end, phone))
            cursor = end
    rows.append((cursor, max(cursor, 0.0) + 10.0, "_"))
    spans, parts = [], []
    for start, end, phone in rows:
        sequence = visemes(phone)
        step = (end - start) / max(1, len(sequence))
        for number, viseme in enumerate(sequence):
            spans.append((start + number * step, start + (number + 1) * step))
            parts.append(viseme)
    starts, ends = np.array(spans).T
    targets = np.array([[v.open, v.width, v.round, v.teeth, v.pressed, v.tongue] for v in parts])
    weights = np.array([[v.hold, v.shape] for v in parts])
    return starts, ends, targets, weights, np.array([v.closed for v in parts])


def _dominance(times: Doubles, starts: Doubles, ends: Doubles) -> Doubles:
    """Dominance (T, S): 1 within a segment, falling off before (anticipation) and after it (carry-over)."""
    before = np.maximum(0.0, starts[None] - times[:, None])
    after = np.maximum(0.0, times[:, None] - ends[None])
    early = np.exp(-before / ANTICIPATION_DECAY) * np.maximum(0.0, 1.0 - before / ANTICIPATION)
    late = np.exp(-after / CARRY_OVER_DECAY) * np.maximum(0.0, 1.0 - after / CARRY_OVER)
    return np.where(before > 0, early, late)


def _closure_gate(times: Doubles, starts: Doubles, ends: Doubles) -> tuple[Doubles, Doubles]:
    """How far the lips may part (T,), 0 in a closure, and how sealed they are (T,), 1 in a closure."""
    apart = np.ones(len(times))
    if len(starts) == 0:
        return apart, np.zeros(len(times))
    extra = np.maximum(0.0, CLOSURE - (ends - starts)) / 2
    away = np.maximum(starts - extra - times[:, None], times[:, None] - ends - extra)
    apart = _ease(np.clip(away.min(axis=1) / CLOSURE_RAMP, 0.0, 1.0))
    return apart, 1.0 - _ease(np.clip(away.min(axis=1) / (0.5 * CLOSURE_RAMP), 0.0, 1.0))


def _speech_gate(times: Doubles, phones: Sequence[Phone]) -> Doubles:
    """Gate (T,): 1 in speech and 0 in pauses.

    It eases to 0 within `REST_WITHIN` of the end of speech, and opens shortly before its start.
    """
    runs: list[list[float]] = []
    for start, end, phone in phones:
        if phone == "_" or end <= start:
            continue
        if runs and start - runs[-1][1] <= PAUSE:
            runs[-1][1] = end
        else:
            runs.append([start, end])
    gate = np.zeros(len(times))
    for start, end in runs:
        rise = np.clip((times - start + OPENING_BEFORE_SPEECH) / OPENING_BEFORE_SPEECH, 0.0, 1.0)
        gate = np.maximum(gate, _ease(rise) * (1.0 - _ease(np.clip((times - end) / REST_WITHIN, 0.0, 1.0))))
    return gate


def loudness_track(
    audio: NDArray[np.generic], times: NDArray[np.float64], sample_rate: int = SAMPLE_RATE
) -> NDArray[np.float64]:
    """Loudness (T,) from -1 to 1 at some moments.

    It compares the level of 50 ms around each moment with the loudest level of the second before it, and is 0
    at -6 dB. It looks back one second and 25 ms ahead, so a streaming model can know it too. Gain does not
    matter.

    Args:
        audio: samples (n,) of any scale.
        times: moments (T,) in seconds.
        sample_rate: of `audio`, in Hz.
    """
    samples = np.asarray(audio, dtype=np.float64)
    hop, half = sample_rate // TRACK_RATE, sample_rate // 40
    total = np.concatenate([[0.0], np.cumsum(samples * samples)])
    centres = np.arange(0, len(samples) + hop, hop)
    low, high = np.clip(centres - half, 0, len(samples)), np.clip(centres + half, 0, len(samples))
    level = 10 * np.log10(np.maximum((total[high] - total[low]) / (2 * half), 1e-12) + 1e-12)
    padded = np.concatenate([np.full(TRACK_RATE, level.min()), level])
    loudest = np.lib.stride_tricks.sliding_window_view(padded, TRACK_RATE + 1).max(axis=1)
    relative = np.clip((level - loudest + 6.0) / 6.0, -1.0, 1.0)
    at_times: Doubles = np.interp(times, centres / sample_rate, relative)
    return at_times


def _ease(x: Doubles) -> Doubles:
    """Smooth step of x in 0..1."""
    return x * x * (3 - 2 * x)
