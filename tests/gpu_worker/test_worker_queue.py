"""The fair queue: nothing lost, order within a session, turns between sessions, a bound per session."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpu_worker.fair_queue import FairQueue

puts = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 2), st.integers(0, 9)), max_size=40)


def _drain(queue: FairQueue[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    out = []
    while (item := queue.pop()) is not None:
        out.append(item)
    return out


@given(puts, st.integers(1, 4))
def test_everything_leaves_once_and_in_order(items: list[tuple[str, int, int]], depth: int) -> None:
    queue = FairQueue[tuple[str, int, int]](depth)
    pushed = [gone for item in items for gone in queue.put(item[0], item[1:], item)]
    assert len(queue) <= depth * 3
    out = _drain(queue)
    assert sorted(out + pushed) == sorted(items)
    assert len(queue) == 0
    for session in "abc":
        keys = [item[1:] for item in out if item[0] == session]
        assert keys == sorted(keys)
        assert len(keys) == min(depth, sum(item[0] == session for item in items))


@given(puts)
def test_no_session_is_served_twice_while_another_waits(items: list[tuple[str, int, int]]) -> None:
    queue = FairQueue[tuple[str, int, int]](100)
    for item in items:
        queue.put(item[0], item[1:], item)
    left = {s: sum(item[0] == s for item in items) for s in "abc"}
    before = None
    for session, _, _ in _drain(queue):
        others = any(count for s, count in left.items() if s != session)
        assert session != before or not others
        left[session] -= 1
        before = session


def test_a_session_that_was_just_served_waits_for_the_others() -> None:
    queue = FairQueue[str](9)
    queue.put("a", (0, 0), "a0")
    assert queue.pop() == "a0"
    queue.put("a", (0, 1), "a1")
    queue.put("b", (0, 0), "b0")
    assert [queue.pop(), queue.pop()] == ["b0", "a1"]


def test_the_oldest_is_pushed_out() -> None:
    queue = FairQueue[int](2)
    assert [queue.put("a", (0, seq), seq) for seq in range(4)] == [[], [], [0], [1]]
    assert queue.put("b", (0, 0), 10) == []


def test_a_late_clip_older_than_a_full_queue_is_itself_pushed_out() -> None:
    queue = FairQueue[int](2)
    queue.put("a", (0, 5), 5)
    queue.put("a", (0, 6), 6)
    assert queue.put("a", (0, 4), 4) == [4]


def test_remove_takes_epochs_up_to_the_given() -> None:
    queue = FairQueue[str](9)
    for epoch in (0, 1, 2):
        queue.put("a", (epoch, 0), f"a{epoch}")
    queue.put("b", (0, 0), "b")
    assert queue.remove("a", 1) == ["a0", "a1"]
    assert queue.remove("none", 1) == []
    assert sorted(filter(None, (queue.pop(), queue.pop(), queue.pop()))) == ["a2", "b"]


def test_depth_must_be_positive() -> None:
    with pytest.raises(ValueError, match="depth 0"):
        FairQueue[int](0)
