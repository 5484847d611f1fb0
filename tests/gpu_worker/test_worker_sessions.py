"""The state of sessions between clips, and when it is forgotten."""

from __future__ import annotations

from gpu_worker.sessions import KEPT_CLIPS, EpochFloor, LatentTable, clip_seed


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_seed_is_the_same_for_the_same_clip_and_differs_otherwise() -> None:
    clips = [(0, "a", 0, 0), (1, "a", 0, 0), (0, "b", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1)]
    seeds = {clip_seed(*clip) for clip in clips}
    assert len(seeds) == 5
    assert clip_seed(0, "a", 0, 0) == clip_seed(0, "a", 0, 0)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_only_the_clip_right_before_counts() -> None:
    table = LatentTable[str](limit=4)
    table.store("a", 0, 3, "end of 3")
    assert table.before("a", 0, 4) == "end of 3"
    assert table.before("a", 0, 3) is None
    assert table.before("a", 0, 5) is None
    assert table.before("a", 1, 4) is None
    assert table.before("b", 0, 4) is None


def test_a_clip_sent_again_finds_the_same_predecessor() -> None:
    table = LatentTable[int](limit=4)
    for seq in range(10):
        table.store("a", 0, seq, seq)
    assert table.before("a", 0, 10 - KEPT_CLIPS + 1) == 10 - KEPT_CLIPS
    assert table.before("a", 0, 10 - KEPT_CLIPS) is None


def test_close_forgets_up_to_its_epoch() -> None:
    table = LatentTable[int](limit=4)
    for epoch in range(3):
        table.store("a", epoch, 0, epoch)
    table.close("a", 1)
    assert [table.before("a", epoch, 1) for epoch in range(3)] == [None, None, 2]
    assert len(table) == 1


def test_idle_and_surplus_sessions_are_forgotten() -> None:
    clock = Clock()
    table = LatentTable[int](limit=2, idle_after=60, clock=clock)
    table.store("a", 0, 0, 0)
    table.store("b", 0, 0, 0)
    clock.now += 50
    table.store("a", 0, 1, 1)
    assert len(table) == 2
    clock.now += 20
    assert len(table) == 1
    assert table.before("a", 0, 2) == 1
    table.store("c", 0, 0, 0)
    table.store("d", 0, 0, 0)
    assert len(table) == 2
    assert table.before("a", 0, 2) is None


def test_epoch_floor_only_rises_and_is_bounded() -> None:
    floor = EpochFloor(limit=2)
    assert not floor.is_stale("a", 0)
    floor.raise_to("a", 3)
    floor.raise_to("a", 1)
    assert floor.is_stale("a", 2)
    assert not floor.is_stale("a", 3)
    floor.raise_to("b", 1)
    floor.raise_to("c", 1)
    assert not floor.is_stale("a", 2)
