"""The clips of a film: bounded under way, in order, and made again from the first that is missing."""

from __future__ import annotations

import pytest

from protocol.wire.messages import Frame
from scripts.render.clips import MOST_TRIES, UNDER_WAY, ClipLedger
from scripts.render.errors import RenderError

FRAMES = 3


def frame(seq: int, index: int, epoch: int = 0, count: int = FRAMES) -> Frame:
    return Frame("render", epoch, seq, index, count, 0, 8, 8, f"{epoch}.{seq}.{index}".encode())


def send_all(ledger: ClipLedger) -> list[int]:
    sent = []
    while (clip := ledger.next_to_send()) is not None:
        sent.append(clip)
    return sent


def add_clip(ledger: ClipLedger, seq: int, epoch: int = 0) -> list[bool]:
    return [ledger.add_frame(frame(seq, index, epoch)) for index in range(FRAMES)]


def test_clips_leave_in_order_whatever_order_they_come_in() -> None:
    ledger = ClipLedger(6, FRAMES)
    assert send_all(ledger) == list(range(UNDER_WAY))
    assert add_clip(ledger, 1) == [False, False, True]
    assert ledger.take_clip() is None
    assert [ledger.add_frame(frame(0, index)) for index in (2, 0, 0, 1)] == [False, False, False, True]
    assert ledger.take_clip() == [b"0.0.0", b"0.0.1", b"0.0.2"]
    assert ledger.take_clip() == [b"0.1.0", b"0.1.1", b"0.1.2"]
    assert send_all(ledger) == [4, 5]
    for seq in range(2, 6):
        add_clip(ledger, seq)
        assert ledger.take_clip() is not None
    assert ledger.finished


def test_doubles_of_clips_that_left_are_confirmed_and_not_kept() -> None:
    ledger = ClipLedger(2, FRAMES)
    send_all(ledger)
    add_clip(ledger, 0)
    assert ledger.take_clip() is not None
    assert ledger.add_frame(frame(0, 1))
    assert ledger.take_clip() is None


def test_after_a_failure_the_first_missing_clip_is_sent_again_in_a_new_epoch() -> None:
    ledger = ClipLedger(5, FRAMES)
    send_all(ledger)
    add_clip(ledger, 0)
    assert ledger.take_clip() is not None
    add_clip(ledger, 2)  # made from the state that clip 1 left, which will be another
    assert ledger.begin_again("clip 1 failed") == 1
    assert send_all(ledger) == [1, 2, 3, 4]
    assert ledger.add_frame(frame(1, 0, epoch=0))
    assert ledger.take_clip() is None
    for seq in (1, 2):
        add_clip(ledger, seq, epoch=1)
    assert ledger.take_clip() == [b"1.1.0", b"1.1.1", b"1.1.2"]
    assert ledger.take_clip() == [b"1.2.0", b"1.2.1", b"1.2.2"]


def test_a_clip_that_fails_every_time_ends_the_film_and_one_that_came_starts_the_count_anew() -> None:
    ledger = ClipLedger(2, FRAMES)
    for _ in range(MOST_TRIES - 1):
        send_all(ledger)
        ledger.begin_again("no numbers")
    send_all(ledger)
    add_clip(ledger, 0, ledger.epoch)
    assert ledger.take_clip() is not None
    for _ in range(MOST_TRIES - 1):
        ledger.begin_again("no numbers")
    ledger.begin_again("a worker had gone", counts=False)
    with pytest.raises(RenderError, match="clip 1 failed 4 times, lastly: no numbers"):
        ledger.begin_again("no numbers")


def test_a_clip_with_fewer_frames_than_asked_for_is_refused() -> None:
    ledger = ClipLedger(1, FRAMES)
    send_all(ledger)
    with pytest.raises(RenderError, match="1 frames and 3 were asked for"):
        ledger.add_frame(frame(0, 0, count=1))


def test_clips_before_a_failed_one_still_leave() -> None:
    ledger = ClipLedger(5, FRAMES)
    send_all(ledger)
    ledger.note_failure(3, 0, "later")
    ledger.note_failure(1, 0, "no numbers")
    ledger.note_failure(2, 0, "later too")
    assert ledger.failure == ""
    add_clip(ledger, 0)
    assert ledger.take_clip() is not None
    assert ledger.failure == "no numbers"
    assert send_all(ledger) == []  # its sound would be for nothing
    assert ledger.begin_again(ledger.failure) == 1
    ledger.note_failure(1, 0, "of the epoch before")
    assert ledger.failure == ""
    assert send_all(ledger) == [1, 2, 3, 4]
