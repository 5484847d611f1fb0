"""Signs of life: blinks, breathing, small movements of head, gaze and brows, periodic over a loop."""

import numpy as np
from numpy.typing import NDArray

from demo.factory.motion.marks import LIFE_COLUMNS

FPS = 24
LOOP_FRAMES = 288
BREATH_PERIOD = 4.0  # seconds
HEAD_SHIFT, HEAD_ROLL = 0.015, 0.03  # bounds, fraction of the image and radians
BLINK_CLOSE, BLINK_HOLD, BLINK_OPEN = 0.085, 0.045, 0.130  # seconds


def life_track(frames: int = LOOP_FRAMES, seed: int = 0, fps: float = FPS) -> NDArray[np.float32]:
    """Signs of life, float32 (frames, 8), in the order of `LIFE_COLUMNS`.

    The track is a loop: frame `frames` would equal frame 0. Seed 0 is the track of every bundled pose. Other
    seeds give training its variety.
    """
    rng = np.random.default_rng([seed, frames])
    duration = frames / fps
    phase = np.arange(frames) / frames  # 0..1 over the loop
    life = np.zeros((frames, len(LIFE_COLUMNS)), dtype=np.float64)
    life[:, 0] = _blinks(phase * duration, duration, rng)
    life[:, 1] = _breath(phase, duration, rng)
    for column, bound in ((2, HEAD_SHIFT), (3, 0.7 * HEAD_SHIFT), (4, HEAD_ROLL)):
        life[:, column] = bound * _wander(phase, duration, 5.0, rng)
    life[:, 5:7] = _gaze(phase * duration, duration, rng) * (0.5, 0.3)
    life[:, 7] = 0.6 * np.clip(_wander(phase, duration, 3.0, rng), -0.5, 1.0)
    # The loop starts as the reference picture looks: head upright, nothing raised.
    life[:, [2, 3, 4, 7]] -= life[:1, [2, 3, 4, 7]] * (0.5 + 0.5 * np.cos(2 * np.pi * phase))[:, None]
    bounds = np.array([1, 1, HEAD_SHIFT, HEAD_SHIFT, HEAD_ROLL, 1, 1, 1])
    return np.clip(life, -bounds, bounds).astype(np.float32)


def _wander(
    phase: NDArray[np.float64], duration: float, shortest: float, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A smooth periodic curve within about ±1, of periods from the loop down to `shortest` seconds."""
    highest = max(1, int(duration / shortest))
    curve = np.zeros_like(phase)
    for harmonic in range(1, highest + 1):
        curve += rng.uniform(0.4, 1.0) / harmonic * np.sin(2 * np.pi * (harmonic * phase + rng.uniform()))
    return curve / max(1e-6, float(np.abs(curve).max()))


def _breath(phase: NDArray[np.float64], duration: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Breath (frames,) in -1..1. Breathing in takes about two fifths of a period, as it does at rest.

    The loop holds whole periods, so that it closes.
    """
    turns = max(1, round(duration / BREATH_PERIOD))
    angle = 2 * np.pi * (turns * phase + rng.uniform())
    breath: NDArray[np.float64] = np.sin(angle + 0.35 * np.sin(angle))
    return breath


def _blinks(times: NDArray[np.float64], duration: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Eyelid closure 0..1, a blink every 2 to 5 s counted around the loop, none across its start."""
    count = max(1, round(duration / rng.uniform(3.0, 3.8)))
    spread = rng.dirichlet(np.full(count, 12.0))
    gaps = 2.1 + spread * max(0.0, duration - 2.1 * count)
    gaps = np.minimum(gaps * duration / gaps.sum(), 5.0)
    # The others share the time that the cap took away, so that the gaps still fill the loop.
    gaps += (duration - gaps.sum()) / count
    starts = rng.uniform(0.3, 0.8) * gaps[-1] + np.concatenate([[0.0], np.cumsum(gaps[:-1])])
    closed = np.zeros_like(times)
    for start in starts:
        closing = np.clip((times - start) / BLINK_CLOSE, 0, 1)
        opening = np.clip((times - start - BLINK_CLOSE - BLINK_HOLD) / BLINK_OPEN, 0, 1)
        closed = np.maximum(closed, _ease(closing) - _ease(opening))
    return closed


def _gaze(times: NDArray[np.float64], duration: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """(frames, 2): glances that jump within 0.08 s and rest for 0.8 to 2.5 s, mostly straight ahead."""
    gaze = np.zeros((len(times), 2))
    now = rng.uniform(0.8, 2.0)
    while now < duration - 1.6:
        target = rng.uniform(-1, 1, 2) * rng.uniform(0.3, 1.0)
        stay = rng.uniform(0.6, 1.2)
        weight = _ease(np.clip((times - now) / 0.08, 0, 1)) - _ease(
            np.clip((times - now - stay) / 0.08, 0, 1)
        )
        gaze += weight[:, None] * target
        now += stay + rng.uniform(0.8, 2.5)
    return gaze


def _ease(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Smooth step of x in 0..1."""
    return x * x * (3 - 2 * x)
