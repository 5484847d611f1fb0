"""Still pixels are held within a level, from clip to clip of a session, and movement passes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from encoder_worker.jpeg import Picture
from encoder_worker.still_pixels import (
    AT_ONCE,
    HELD,
    KEPT_SECONDS,
    OWN_SILENT,
    SILENT,
    SPOKEN,
    StillPixels,
    held,
)
from protocol.wire.messages import ClipKey


def shown(level: int, side: int = 4) -> Picture:
    """One picture, (1, side, side, 3), all of one level."""
    return np.full((1, side, side, 3), level, np.uint8)


def through(still: StillPixels, clip: ClipKey, *parts: Picture, kind: str = SPOKEN) -> list[int]:
    """The level of each picture of a clip as it is shown."""
    made = np.concatenate(list(still.through(clip, iter(parts), kind)))
    assert (made == made[:, :1, :1, :1]).all()
    return [int(level) for level in made[:, 0, 0, 0]]


def pixels(low: int, high: int) -> st.SearchStrategy[Picture]:
    """Five pictures of 2×3 with levels of a range."""
    return hnp.arrays(np.uint8, (5, 2, 3, 3), elements=st.integers(low, high))


@given(pixels(0, 255) | pixels(0, 3) | pixels(252, 255), st.booleans())
def test_a_value_is_held_or_passes_and_is_never_further_than_a_level(decoded: Picture, first: bool) -> None:
    given_ones = decoded.copy()
    before = decoded[0] if first else None
    made = held(decoded[1:] if first else decoded, before)
    assert (decoded == given_ones).all()
    every = np.concatenate((decoded[:1], made)) if first else made
    assert np.abs(every.astype(int) - decoded).max() <= HELD
    for (last, now), raw in zip(pairwise(every), decoded[1:], strict=True):
        stays = np.abs(raw.astype(int) - last) <= HELD
        assert (now == np.where(stays, last, raw)).all()


def test_a_large_picture_is_held_as_its_parts_are() -> None:
    draw = np.random.default_rng(0)
    decoded = draw.integers(0, 256, (1, 270, 250, 3), np.uint8).repeat(3, axis=0)
    assert AT_ONCE < decoded[0].size < 2 * AT_ONCE
    decoded += draw.integers(0, 4, decoded.shape, np.uint8)
    made = held(decoded, None)
    for rows in (slice(100), slice(100, None)):
        assert (made[:, rows] == held(decoded[:, rows], None)).all()
    assert (made != decoded).any() and np.abs(made.astype(int) - decoded).max() == HELD
    turned = decoded.swapaxes(1, 2)
    assert (held(turned, None) == made.swapaxes(1, 2)).all()


@given(pixels(0, 255), st.integers(1, 4))
def test_pictures_are_held_alike_however_many_come_at_a_time(decoded: Picture, cut: int) -> None:
    parts = iter((decoded[:cut], decoded[cut:]))
    made = np.concatenate(list(StillPixels().through(("anna", 0, 0), parts)))
    assert (made == held(decoded, None)).all()


def test_noise_of_a_level_is_still_and_movement_is_not_changed() -> None:
    levels = np.array([100, 101, 99, 100, 102, 103, 255, 0, 255, 1], np.uint8)
    made = held(np.tile(levels[:, None, None, None], (1, 2, 2, 3)), None)
    assert made[:, 0, 0, 0].tolist() == [100, 100, 100, 100, 102, 102, 255, 0, 255, 1]


def test_a_slow_change_is_followed() -> None:
    ramp = np.arange(200, dtype=np.uint8)
    made = held(np.tile(ramp[:, None, None, None], (1, 2, 2, 3)), None)[:, 0, 0, 0]
    assert np.abs(made.astype(int) - ramp).max() == HELD and made[-1] >= 198


def test_a_clip_goes_on_from_the_one_right_before() -> None:
    still = StillPixels()
    assert through(still, ("anna", 0, 7), shown(10), shown(11)) == [10, 10]
    assert through(still, ("anna", 0, 8), shown(11), shown(9)) == [10, 10]
    assert through(still, ("anna", 0, 9), shown(12), shown(11)) == [12, 12]


@pytest.mark.parametrize(
    "clip", [("anna", 0, 7), ("anna", 0, 6), ("anna", 0, 9), ("anna", 1, 8), ("anna", 1, 0), ("bert", 0, 8)]
)
def test_no_other_clip_goes_on_from_it(clip: ClipKey) -> None:
    still = StillPixels()
    through(still, ("anna", 0, 7), shown(10))
    assert through(still, clip, shown(11)) == [11]


def test_sessions_do_not_mix() -> None:
    still = StillPixels()
    through(still, ("anna", 0, 0), shown(10))
    through(still, ("bert", 0, 0), shown(12))
    assert through(still, ("anna", 0, 1), shown(11)) == [10]
    assert through(still, ("bert", 0, 1), shown(11)) == [12]


def test_another_size_begins_anew() -> None:
    still = StillPixels()
    through(still, ("anna", 0, 0), shown(10))
    assert through(still, ("anna", 0, 1), shown(11, side=8)) == [11]
    assert through(still, ("anna", 0, 2), shown(10, side=8)) == [11]


def test_nothing_goes_on_from_a_clip_that_was_not_whole() -> None:
    still = StillPixels()
    through(still, ("anna", 0, 0), shown(10))
    begun = still.through(("anna", 0, 1), iter((shown(10), shown(10))))
    next(begun)
    del begun  # as where the clip is taken back meanwhile
    assert through(still, ("anna", 0, 2), shown(11)) == [11]

    def fails() -> Iterator[Picture]:
        yield shown(10)
        raise ValueError

    with pytest.raises(ValueError):
        list(still.through(("anna", 0, 3), fails()))
    assert through(still, ("anna", 0, 4), shown(11)) == [11]


@pytest.mark.parametrize("before", [SPOKEN, SILENT, OWN_SILENT])
@pytest.mark.parametrize("kind", [SPOKEN, SILENT, OWN_SILENT])
def test_a_clip_that_is_shared_goes_on_only_from_its_own_kind(before: str, kind: str) -> None:
    still = StillPixels()
    through(still, ("anna", 0, 0), shown(10), kind=before)
    goes_on = kind in (SPOKEN, before)
    assert through(still, ("anna", 0, 1), shown(11), kind=kind) == [10 if goes_on else 11]


def test_pictures_of_sessions_without_clips_are_dropped() -> None:
    now = 0.0
    still = StillPixels(clock=lambda: now)
    through(still, ("anna", 0, 0), shown(10))
    now = 3.0
    through(still, ("bert", 0, 0), shown(10))
    now = 0.5 + KEPT_SECONDS
    still.forget_old()
    assert len(still) == 1
    assert through(still, ("anna", 0, 1), shown(11)) == [11]
    assert through(still, ("bert", 0, 1), shown(11)) == [10]
    now += 2 * KEPT_SECONDS
    still.forget_old()
    assert len(still) == 0


def test_the_oldest_sessions_give_way() -> None:
    still = StillPixels(most_sessions=2)
    for session in ("anna", "bert", "carl"):
        through(still, (session, 0, 0), shown(10))
    assert len(still) == 2
    assert through(still, ("anna", 0, 1), shown(11)) == [11]
    assert through(still, ("carl", 0, 1), shown(11)) == [10]
