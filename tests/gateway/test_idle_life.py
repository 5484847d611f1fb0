"""While a client sends nothing its face lives on, and speech is never later for it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from gateway.core.idle_life import LEAST_LEAD, MOST_STILL, IdleLife
from gateway.core.options import SessionLimits
from gateway.core.session import SessionCore
from protocol.wire.browser import AudioMessage, VideoMessage, decode_down
from protocol.wire.controls import Shown
from protocol.wire.messages import Frame
from tests.gateway.test_core_session import OPTIONS, Sent, Stages, heard, run

STEP = 0.005


def lively(on: bool = True) -> SessionCore:
    core = SessionCore("s", 2, OPTIONS, SessionLimits(), 0.0)
    core.life.on = on
    return core


def frames(sent: list[Sent]) -> list[tuple[float, VideoMessage]]:
    return [(at, m) for at, m in sent if isinstance(m, VideoMessage)]


def test_a_face_that_nobody_speaks_to_lives_on() -> None:
    sent = run(lively(), np.empty(0, np.float32), 6.0, delay=lambda clip: 0.05, step=STEP)
    made = frames(sent)
    assert not any(isinstance(m, AudioMessage) for _, m in sent)
    assert all(m.idle for _, m in made)
    assert [(m.seq, m.index) for _, m in made] == [(i // 12, i % 12) for i in range(len(made))]
    assert 0.3 < made[0][0] < 0.5  # --idle-flush after the session's beginning
    gaps = [later - earlier for (earlier, _), (later, _) in pairwise(made)]
    assert np.mean(gaps) == pytest.approx(1 / 24, rel=0.02) and max(gaps) < 0.1


def test_clips_are_asked_for_one_at_a_time_and_only_just_before_their_turn() -> None:
    core = lively()
    stages, asked = Stages(core), []
    for now in np.arange(0.0, 10.0, STEP):
        pcm = core.next_pcm(now, 0)
        asked += [now] * len(pcm)
        assert all(len(one.samples) == 8000 and one.flush and not one.samples.any() for one in pcm)
        stages.take(pcm, now, lambda clip: 0.05, lambda clip: "come")
        stages.give(now)
        core.next_messages(now, True)
    assert 18 <= len(asked) <= 21
    assert core.life.lead == pytest.approx(0.065, abs=0.01)
    assert core.clips_done == core.frames_lost == 0 and core.latency.figures("x")["x_count"] == 0


@pytest.mark.parametrize("begin", [2.0 + 0.05 * k for k in range(12)])
@pytest.mark.parametrize("burst", [True, False])
def test_speech_is_not_later_than_without_it(begin: float, burst: bool) -> None:
    """Whenever it begins, all at once or in real time. Its sound is whole, and no frame is out of order."""
    first = {}
    for on in (False, True):
        core = lively(on)
        sent = spoken(core, begin, burst)
        sound = heard(sent)
        assert np.array_equal(sound, np.ones(16000, np.float32))
        assert [m.position for _, m in sent if isinstance(m, AudioMessage)] == [0, 8000]
        first[on] = next(at for at, m in frames(sent) if not m.idle)
        places = [(m.seq, m.index) for _, m in frames(sent)]
        assert places == sorted(places)
        speaking = [i for i, (_, m) in enumerate(frames(sent)) if not m.idle]
        assert speaking == list(range(speaking[0], speaking[0] + 24))
        if on:
            # the face moves until speech begins, and again soon after it
            times = [at for at, _ in frames(sent)]
            assert first[on] - times[speaking[0] - 1] < MOST_STILL + 2 / 24
            after = times[speaking[-1] + 1] - times[speaking[-1]]
            assert after < (1.0 if burst else 0.5) + 0.2
    assert first[True] <= first[False] + 2 * STEP


def spoken(core: SessionCore, begin: float, burst: bool) -> list[Sent]:
    """A second of speech, begun after `begin` seconds."""
    stages, sent, place = Stages(core), [], 0
    words = np.ones(16000, np.float32)
    chunk = 16000 if burst else round(16000 * STEP)

    def delay(clip: int) -> float:
        return 0.2 if place else 0.05

    for now in np.arange(0.0, begin + 4.0, STEP).tolist():
        if now >= begin and place < len(words):
            core.add_speech(words[place : place + chunk], now)
            place += chunk
        stages.take(core.next_pcm(now, 0), now, delay, lambda clip: "come")
        stages.give(now)
        core.check_limits(now)
        for out in core.next_messages(now, True):
            message = decode_down(out.data, 2)
            sent.append((now, message))
            if isinstance(message, VideoMessage):
                core.frame_shown(Shown(message.epoch, message.seq, message.index), now)
    return sent


def test_speech_does_not_wait_for_an_idle_clip() -> None:
    core = lively()
    (asked,) = core.next_pcm(0.4, 0)
    assert asked.flush
    core.add_speech(np.ones(8000, np.float32), 0.5)
    core.next_pcm(0.5, 0)
    core.add_frame(Frame("s", 0, 1, 0, 12, 8000, 8, 8, b"j"), 0.7)
    messages = core.next_messages(0.7, True)
    assert len(messages) == 2 and core.frames_lost == 0
    # the idle clip's frames come too late, and nobody wants them any more
    assert not core.add_frame(Frame("s", 0, 0, 0, 12, 0, 8, 8, b"j"), 0.8)


def test_nothing_is_asked_for_without_a_client_or_a_stage() -> None:
    core = lively()
    core.parked = True
    assert core.next_pcm(1.0, 0) == []
    core.parked = False
    core.begin_outage("no GPU worker")
    assert core.next_pcm(2.0, 0) == []
    core.restart(OPTIONS, 3.0)
    assert len(core.next_pcm(3.0, 0)) == 1


def test_a_new_epoch_begins_with_no_old_frame() -> None:
    for change in ("interrupt", "restart"):
        core = lively()
        core.next_pcm(0.4, 0)
        for index in range(12):
            core.add_frame(Frame("s", 0, 0, index, 12, index * 666, 8, 8, b"j"), 0.45)
        assert len(core.next_messages(0.46, True)) >= 1
        if change == "interrupt":
            assert core.interrupt(0.5)["position"] == 0
        else:
            core.restart(OPTIONS, 0.5)
        assert core.next_messages(1.0, True) == []
        (again,) = core.next_pcm(1.0, 0)
        assert (again.epoch, again.pts) == (1, 0)


def test_a_clip_that_never_comes_is_followed_by_another() -> None:
    core = lively()
    sent = run(
        core, np.empty(0, np.float32), 20.0, lambda clip: 0.05, lambda clip: "never" if clip == 2 else "come"
    )
    made = frames(sent)
    assert made[-1][0] > 19.0 and {m.seq for _, m in made} >= {0, 1, 3, 4}
    assert core.fatal is None and core.frames_lost == 0


def test_history_of_a_later_worker_has_the_silence() -> None:
    core = lively()
    run(core, np.ones(8000, np.float32), 4.0, delay=lambda clip: 0.05, step=STEP)
    core.restart(OPTIONS, 4.0)
    (first,) = core.next_pcm(4.5, 0)
    assert first.history == 24000
    assert not first.samples.any()  # 1.5 s of idle life lie behind the words


def test_a_live_client_hears_of_voices_only() -> None:
    """`speech_started` and `speech_ended` follow the voice where the sound never stops."""
    core = lively(on=False)
    core.live = True
    kinds = []
    for clip, silent in enumerate([True, False, False, True, True, True, True, True, True, False]):
        now = 0.5 * (clip + 1)
        core.add_speech(np.ones(8000, np.float32), now)
        core.next_pcm(now, 0)
        for index in range(12):
            pts = clip * 8000 + index * 16000 // 24
            core.add_frame(Frame("s", 0, clip, index, 12, pts, 8, 8, b"j", silent=silent), now)
        core.next_messages(now, True)
        kinds += core.take_events()
    assert kinds == [
        ("speech_started", {"epoch": 0, "pts": 8000}),
        ("speech_ended", {"epoch": 0, "pts": 24000}),
        ("idle", {"epoch": 0, "pts": 24000}),
        ("speech_started", {"epoch": 0, "pts": 72000}),
    ]


def test_the_lead_follows_the_stages() -> None:
    life = IdleLife()
    life.on = True
    for clip in range(5):
        life.asked(clip, 10.0)
        assert life.ask_at(0.0, 0.0) == float("inf")
        life.begins(clip, 10.01)
        life.ends(clip)
    assert life.lead == LEAST_LEAD
    assert life.ask_at(3.0, 20.0) == pytest.approx(20.0 - LEAST_LEAD)
    assert life.ask_at(30.0, 20.0) == 30.0
