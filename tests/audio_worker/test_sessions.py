"""The session table: several sessions, epochs, overload, expiry, contradictions."""

from __future__ import annotations

import numpy as np

from audio_worker.sessions import LOOKS_FOR, Sessions
from protocol.wire.messages import Close, Failed, Pcm


def pcm(
    n: int, *, session: str = "a", epoch: int = 0, pts: int = 0, fps: int = 24, frames: int = 12,
    rate: int = 16000, value: float = 0.5, flush: bool = False,
) -> Pcm:  # fmt: skip
    samples = np.full(n, value, np.float32)
    return Pcm(session, epoch, 0, pts, rate, fps, frames, "anna", "calm", flush, samples)


def test_sessions_do_not_mix() -> None:
    table = Sessions()
    table.add_speech(pcm(4000, session="a", value=0.25), 0.0)
    table.add_speech(pcm(8000, session="b", value=0.75), 0.0)
    table.add_speech(pcm(4000, session="a", value=0.25, pts=4000), 0.0)
    by_name = {clip.session: clip.samples[-8000:] for clip in table.take_due(9)}
    assert (by_name["a"] == 0.25).all() and (by_name["b"] == 0.75).all()


def test_clips_wait_in_order_and_are_taken_as_they_are() -> None:
    table = Sessions()
    table.add_speech(pcm(16000, session="a"), 1.0)
    table.add_speech(pcm(8000, session="b"), 2.0)
    assert table.due == 3
    assert [(c.session, c.seq) for c in table.take_due(2)] == [("a", 0), ("a", 1)]
    assert [(c.session, c.seq, c.since) for c in table.take_due(8)] == [("b", 0, 2.0)]


def test_the_oldest_clip_is_given_up_under_overload() -> None:
    table = Sessions(max_pending=2)
    table.add_speech(pcm(8000, session="b"), 0.0)
    failed = [f for k in range(4) for f in table.add_speech(pcm(8000, pts=8000 * k), 0.0)]
    assert failed == [Failed("a", 0, seq, "audio_worker", "overload", fatal=False) for seq in (0, 1)]
    assert [(c.session, c.seq) for c in table.take_due(9)] == [("b", 0), ("a", 2), ("a", 3)]


def test_a_new_epoch_replaces_the_old_one() -> None:
    table = Sessions()
    table.add_speech(pcm(8000), 0.0)
    old = table.take_due(1)[0]
    table.add_speech(pcm(8000, epoch=1), 0.0)
    assert not table.alive(old)
    assert table.add_speech(pcm(8000, pts=8000), 0.0) == []  # a late chunk of epoch 0
    assert [c.epoch for c in table.take_due(9)] == [1]


def test_close_forgets_the_session_and_what_it_waits_for() -> None:
    table = Sessions()
    table.add_speech(pcm(8000), 0.0)
    table.add_speech(pcm(8000, session="b"), 0.0)
    table.close(Close("a", 0))
    table.close(Close("nobody", 3))
    assert len(table) == 1
    assert [c.session for c in table.take_due(9)] == ["b"]


def test_close_of_an_older_epoch_leaves_the_newer_alone() -> None:
    table = Sessions()
    table.add_speech(pcm(8000, epoch=2), 0.0)
    table.close(Close("a", 1))
    assert len(table) == 1 and table.due == 1


def test_silent_sessions_expire() -> None:
    table = Sessions(expire_after=10.0)
    table.add_speech(pcm(100, session="a"), 0.0)
    table.add_speech(pcm(100, session="b"), 8.0)
    assert table.expire(11.0) == [Close("a", 0)]
    assert len(table) == 1
    table.clear()
    assert len(table) == 0


def test_a_session_may_not_change_its_rate_and_says_so_once() -> None:
    table = Sessions()
    table.add_speech(pcm(100), 0.0)
    failed = table.add_speech(pcm(100, pts=100, rate=48000), 0.0)
    assert len(failed) == 1 and failed[0].fatal and "sample rate changed" in failed[0].reason
    assert table.add_speech(pcm(100, pts=200), 0.0) == []
    assert table.add_speech(pcm(8000, session="b"), 0.0) == [] and table.due == 1


def test_frame_rate_and_clip_length_fall_together() -> None:
    table = Sessions()
    table.add_speech(pcm(8000), 0.0)
    assert table.add_speech(pcm(8000, pts=8000, fps=12, frames=6), 0.0) == []
    assert [(c.seq, c.fps, c.clip_frames) for c in table.take_due(9)] == [(0, 24, 12), (1, 12, 6)]
    assert table.add_speech(pcm(8000, pts=16000, fps=12, frames=12), 0.0)[0].fatal


def test_a_clip_too_long_fails_its_session_only() -> None:
    table = Sessions()
    failed = table.add_speech(pcm(8000, fps=1, frames=12), 0.0)
    assert failed[0].fatal and "1.5 s" in failed[0].reason
    assert table.add_speech(pcm(8000, pts=8000, fps=1, frames=12), 0.0) == []


def test_short_clips_wait_for_a_little_of_the_next_one_and_not_for_long() -> None:
    table = Sessions()
    table.add_speech(pcm(2000, frames=3), 1.0)
    table.add_speech(pcm(2000, session="b", frames=4), 1.0)
    table.add_speech(pcm(667, session="b", frames=4, pts=2000), 1.0)
    assert [(c.session, c.seq, c.ahead) for c in table.take_due(9)] == [("b", 0, 0)]
    table.add_speech(pcm(320, frames=3, pts=2000), 1.02)
    assert [(c.session, c.seq, c.ahead) for c in table.take_due(9)] == [("a", 0, 320)]
    table.add_speech(pcm(1680, frames=3, pts=2320), 2.0)
    assert table.look_no_further(1.99 + LOOKS_FOR) == [] and not table.due
    assert table.look_no_further(2.01 + LOOKS_FOR) == []
    assert [(c.session, c.seq, c.avatar, c.since) for c in table.take_due(9)] == [
        ("a", 1, "anna", 2.01 + LOOKS_FOR)
    ]
    table.add_speech(pcm(2320, frames=3, pts=4000), 3.0)
    table.add_speech(pcm(1680, frames=3, pts=6320, flush=True), 3.1)  # complete, and nothing follows
    assert [c.seq for c in table.take_due(9)] == [2, 3]
