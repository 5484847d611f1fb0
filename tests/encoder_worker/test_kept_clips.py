"""Coded pictures of clips that come again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from encoder_worker.kept_clips import (
    COMES_AGAIN,
    KEPT_SECONDS,
    PRIVATE_SECONDS,
    Coded,
    KeptClips,
    clip_digest,
)
from encoder_worker.video import CodedPicture

PARTS: list[Coded] = [
    ((8, 8), [CodedPicture(b"one"), CodedPicture(b"two")]),
    ((8, 8), [CodedPicture(b"three")]),
]


def test_a_clip_is_coded_once() -> None:
    kept, made = KeptClips(), 0

    def make() -> Iterator[Coded]:
        nonlocal made
        made += 1
        yield from PARTS

    for _ in range(3):
        assert list(kept.through((b"a", "jpeg"), make)) == PARTS
    assert (made, kept.hits, kept.size) == (1, 2, 11)
    list(kept.through((b"a", "h264"), make))
    assert made == 2


def test_a_clip_that_was_not_taken_whole_is_not_kept() -> None:
    kept = KeptClips()
    assert next(kept.through((b"a", "jpeg"), lambda: iter(PARTS))) == PARTS[0]
    assert kept.size == 0


def test_the_oldest_gives_way_once_nobody_asks_for_it() -> None:
    now = 0.0
    kept = KeptClips(budget=25, clock=lambda: now)
    for name in (b"a", b"b", b"a"):
        list(kept.through((name, "jpeg"), lambda: iter(PARTS)))
    now = COMES_AGAIN - 1
    list(kept.through((b"a", "jpeg"), lambda: iter(PARTS)))
    now = COMES_AGAIN + 1
    list(kept.through((b"c", "jpeg"), lambda: iter(PARTS)))
    assert kept.size == 22
    for name, hits in ((b"a", 3), (b"c", 4), (b"b", 4)):
        list(kept.through((name, "jpeg"), lambda: iter(PARTS)))
        assert kept.hits == hits


def test_a_gesture_larger_than_the_budget_keeps_as_much_as_fits() -> None:
    now = 0.0
    kept = KeptClips(budget=35, clock=lambda: now)
    for _ in range(3):
        for name in (b"a", b"b", b"c", b"d"):
            now += 1
            list(kept.through((name, "jpeg"), lambda: iter(PARTS)))
    assert (kept.hits, kept.size) == (6, 33)


def test_pictures_of_an_own_avatar_go_when_nobody_asks_for_them() -> None:
    now = 0.0
    kept = KeptClips(clock=lambda: now)
    for name, private in ((b"theirs", True), (b"ours", False)):
        list(kept.through((name, "jpeg"), lambda: iter(PARTS), private=private))
    now = PRIVATE_SECONDS - 1
    kept.forget_old()
    list(kept.through((b"theirs", "jpeg"), lambda: iter(PARTS), private=True))
    assert (kept.hits, kept.size) == (1, 22)
    now += PRIVATE_SECONDS + 1
    kept.forget_old()
    assert kept.size == 11
    list(kept.through((b"ours", "jpeg"), lambda: iter(PARTS)))
    assert kept.hits == 2


def test_the_digest_is_of_the_contents() -> None:
    latents = np.random.default_rng(0).standard_normal((4, 2, 3, 3)).astype(np.float16)
    assert clip_digest(latents) == clip_digest(latents.copy()) != clip_digest(latents[::-1])
    assert clip_digest(latents) != clip_digest(latents.reshape(2, 4, 3, 3))
    assert len(clip_digest(latents)) == 16


def test_clips_that_nobody_asks_for_go() -> None:
    now = 0.0
    kept = KeptClips(clock=lambda: now)
    for name in (b"a", b"b"):
        list(kept.through((name, "jpeg"), lambda: iter(PARTS)))
    now = KEPT_SECONDS - 1
    kept.forget_old()
    list(kept.through((b"a", "jpeg"), lambda: iter(PARTS)))
    now += 2
    kept.forget_old()
    assert (kept.hits, kept.size) == (1, 11)
    now += KEPT_SECONDS
    kept.forget_old()
    assert kept.size == 0
