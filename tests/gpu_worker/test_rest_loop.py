"""Latents of silent clips are kept by avatar, pose and frames, in memory and on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from gpu_worker import kept_features
from gpu_worker.engine.kept_loops import KeptLoops, loop_source
from gpu_worker.engine.rest_loop import KEPT_SECONDS, LoopName, RestKey, RestLoops
from gpu_worker.kept_features import FeatureFolder


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


def test_an_avatar_is_forgotten_whole() -> None:
    rests = RestLoops()
    for name, first in (("ann", 0), ("ben", 0), ("ann", 2)):
        rests.store((name, "calm", 24, (first, first + 1)), latents(first))
    assert rests.avatars() == {"ann", "ben"}
    rests.forget("ann")
    assert (rests.avatars(), rests.bytes, len(rests)) == ({"ben"}, 16, 1)
    assert list(rests.take_changed()) == [("ben", "calm", 24, 2)]


def test_loops_that_nobody_asks_for_go() -> None:
    now = 0.0
    rests = RestLoops(clock=lambda: now)
    for fps in (24, 12):
        for first in (0, 2):
            rests.store(("ann", "calm", fps, (first, first + 1)), latents(first))
    now = KEPT_SECONDS - 1
    assert rests.get(key(0)) is not None and rests.drop_unused() == []
    now += 2
    assert rests.drop_unused() == [("ann", "calm", 12, 2)]
    assert (len(rests), rests.bytes) == (2, 32)
    assert list(rests.take_changed()) == [("ann", "calm", 24, 2)]
    now += KEPT_SECONDS
    assert rests.drop_unused() == [("ann", "calm", 24, 2)]
    assert (len(rests), rests.bytes, rests.drop_unused()) == (0, 0, [])


# ------------------------------------------------------------------ on disk

SOURCE = b"a picture, a pose, a noise"
NAME: LoopName = ("ann", "calm", 24, 2)


def kept(folder: Path) -> tuple[KeptLoops, RestLoops]:
    rests = RestLoops()
    loops = KeptLoops(FeatureFolder(folder, "model"), rests)
    assert not loops.asked(NAME)
    loops.read(NAME, SOURCE)
    assert loops.asked(NAME)
    return loops, rests


def test_the_next_start_reads_the_loop(tmp_path: Path) -> None:
    loops, rests = kept(tmp_path)
    rests.store(key(0), latents(1))
    rests.store(("own", "calm", 24, (0, 1)), latents(9))  # nobody has asked for it on disk
    assert loops.write_one() and not loops.write_one()
    (file,) = tmp_path.iterdir()
    assert kept_features.KEPT_NAME.fullmatch(file.name)  # it makes room as all features do
    again, read = kept(tmp_path)
    found = read.get(key(0))
    assert found is not None and found.dtype == np.float16 and (found == 1).all()
    assert len(read) == 1 and not again.write_one()  # there is nothing new


def test_two_workers_complete_a_loop(tmp_path: Path) -> None:
    (one, ones), (two, twos) = kept(tmp_path), kept(tmp_path)
    ones.store(key(0), latents(1))
    twos.store(key(0), latents(7))
    twos.store(key(2), latents(2))
    assert one.write_one() and two.write_one()
    _, read = kept(tmp_path)
    found = read.get(key(0))
    assert len(read) == 2 and found is not None and (found == 1).all()  # the first ones stay


def test_a_loop_belongs_to_its_contents(tmp_path: Path) -> None:
    pose = tmp_path / "calm.npz"
    pose.write_bytes(b"a pose")
    tokens = latents(0)
    source = loop_source("picture", pose, tokens, 24, 12)
    assert source == loop_source("picture", pose, tokens.copy(), 24, 12)
    others = {
        loop_source("other", pose, tokens, 24, 12),
        loop_source("picture", pose, latents(1), 24, 12),
        loop_source("picture", pose, tokens, 24, 4),
    }
    pose.write_bytes(b"another pose")
    others.add(loop_source("picture", pose, tokens, 24, 12))
    assert len(others) == 4 and source not in others
