"""Frames in any order, doubled or missing: clips come out in order, each frame once."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.reorder import ClipBegins, ClipEnds, InOrder, NextFrame, Reorderer
from protocol.wire.messages import Frame

COUNT = 4


def frame(seq: int, index: int, count: int = COUNT) -> Frame:
    return Frame("s", 0, seq, index, count, seq * 8000 + index, 8, 8, b"j")


@given(st.data())
def test_any_order_with_duplicates_and_failures(data: st.DataObject) -> None:
    clips = data.draw(st.integers(1, 6))
    failed = data.draw(st.sets(st.integers(0, clips - 1)))
    events = [(s, i) for s in range(clips) if s not in failed for i in range(COUNT)]
    events += data.draw(st.lists(st.sampled_from(events), max_size=10)) if events else []
    events += [(s, -1) for s in failed]
    order = Reorderer(COUNT, lambda seq: seq < clips)
    out: list[InOrder] = []
    for seq, index in data.draw(st.permutations(events)):
        if index < 0:
            assert order.fail(seq)
        else:
            order.add_frame(frame(seq, index))
        out += order.pop()
    expected: list[InOrder] = []
    for seq in range(clips):
        if seq in failed:
            expected += [ClipBegins(seq, False), ClipEnds(seq, COUNT)]
        else:
            expected += [
                ClipBegins(seq, True),
                *(NextFrame(frame(seq, i)) for i in range(COUNT)),
                ClipEnds(seq, 0),
            ]
    assert out == expected
    assert order.next_seq == clips and all(order.complete(seq) for seq in range(clips))


def test_pictures_go_out_as_they_come() -> None:
    order = Reorderer(COUNT, lambda seq: True)
    assert order.add_frame(frame(0, 0))
    assert order.pop() == [ClipBegins(0, True), NextFrame(frame(0, 0))]
    assert order.add_frame(frame(0, 2))
    assert order.pop() == []
    assert order.add_frame(frame(0, 1))
    assert order.pop() == [NextFrame(frame(0, 1)), NextFrame(frame(0, 2))]
    assert not order.complete(0)


def test_a_clip_that_fails_halfway_keeps_what_came_in_order() -> None:
    order = Reorderer(COUNT, lambda seq: True)
    order.add_frame(frame(0, 0))
    order.add_frame(frame(0, 2))
    order.fail(0)
    assert order.pop() == [ClipBegins(0, True), NextFrame(frame(0, 0)), ClipEnds(0, 3)]
    assert not order.add_frame(frame(0, 1))


def test_frames_of_clips_never_asked_for_are_refused() -> None:
    order = Reorderer(COUNT, lambda seq: seq < 1)
    assert not order.add_frame(frame(1, 0))
    assert not order.fail(1)
    order.add_frame(frame(0, 0))
    assert not order.add_frame(frame(0, 1, count=9))
    assert not order.add_frame(frame(0, 0))
