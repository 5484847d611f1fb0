"""Latents of silent clips are kept by avatar, pose and frames."""

from __future__ import annotations

import numpy as np

from gpu_worker.engine.rest_loop import RestKey, RestLoops


def key(first: int) -> RestKey:
    return "ann", "calm", 24, (first, first + 1)


def latents(value: float) -> np.ndarray:
    return np.full((2, 1, 2, 2), value, np.float16)


def test_the_first_latents_stay() -> None:
    rests = RestLoops()
    assert rests.get(key(0)) is None
    rests.store(key(0), latents(1))
    rests.store(key(0), latents(2))
    found = rests.get(key(0))
    assert found is not None and (found == 1).all()
    assert (rests.hits, rests.misses, rests.bytes, len(rests)) == (1, 1, 16, 1)


def test_the_least_used_gives_way() -> None:
    rests = RestLoops(budget=40)
    rests.store(key(0), latents(0))
    rests.store(key(2), latents(2))
    rests.get(key(0))
    rests.store(key(4), latents(4))
    assert (len(rests), rests.bytes) == (2, 32)
    assert rests.get(key(2)) is None and rests.get(key(0)) is not None
