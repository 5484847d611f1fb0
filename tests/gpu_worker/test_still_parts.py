"""Small changes of latents are held back, large ones pass, and clips join."""

from __future__ import annotations

import numpy as np

from gpu_worker.engine.still_parts import FIRST_HELD, HELD, stilled

SHAPE = (4, 6, 8)


def clips(count: int = 2, jitter: float = 0.01, jump: float = 0.05) -> list[np.ndarray]:
    """Clips of a still picture: frames flicker a little, and each clip lies a little beside the others."""
    rng = np.random.default_rng(0)
    picture = rng.standard_normal(SHAPE)
    offsets = jump * rng.standard_normal((count, *SHAPE))
    return [
        (picture + offset + jitter * rng.standard_normal((12, *SHAPE))).astype(np.float16)
        for offset in offsets
    ]


def changes(frames: np.ndarray) -> np.ndarray:
    moved: np.ndarray = np.abs(np.diff(frames.astype(np.float32), axis=0)).mean((1, 2, 3))
    return moved


def test_flicker_is_held_back() -> None:
    (clip,) = clips(1)
    made = stilled(clip, None)
    assert made.dtype == np.float16 and made.shape == clip.shape
    assert changes(made).mean() < 0.4 * changes(clip).mean()
    assert np.array_equal(made[0], clip[0])


def test_a_clip_joins_the_one_before() -> None:
    first, second = clips()
    before = stilled(first, None)
    after = stilled(second, before[-1].astype(np.float32))
    seam = float(np.abs(after[0].astype(np.float32) - before[-1]).mean())
    raw = float(np.abs(second[0].astype(np.float32) - first[-1]).mean())
    assert seam < 0.4 * raw
    for none in (None, np.zeros((4, 3, 3), np.float32)):
        assert np.array_equal(stilled(second, none)[0], second[0])


def test_what_moves_passes() -> None:
    (clip,) = clips(1)
    clip[6:, :, :3] += np.float16(1)
    made = stilled(clip, None)
    moved = np.abs(made[6, :, :3].astype(np.float32) - made[5, :, :3]).mean()
    assert moved > 0.99
    assert np.abs(made[6, :, 3:].astype(np.float32) - made[5, :, 3:]).mean() < 0.02


def test_a_slow_move_is_followed() -> None:
    """A change that goes on adds up until it passes: the picture lags by less than twice what is held."""
    slow = np.broadcast_to(np.arange(48)[:, None, None, None] * 0.01, (48, *SHAPE)).astype(np.float16)
    parts = np.split(slow, 4)
    before, made = None, []
    for part in parts:
        made.append(stilled(part, before))
        before = made[-1][-1].astype(np.float32)
    lag = slow.astype(np.float32) - np.concatenate(made)
    assert lag.min() >= 0 and lag.max() < 2 * max(HELD, *FIRST_HELD)


def test_the_given_latents_stay() -> None:
    (clip,) = clips(1)
    copy = clip.copy()
    stilled(clip, np.zeros(SHAPE, np.float32))
    assert np.array_equal(clip, copy)
