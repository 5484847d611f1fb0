"""A session without sockets: whatever the stages do, sound is whole, frames in order, delay bounded."""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.audio_log import ClipShape
from gateway.core.options import SessionLimits, SessionOptions
from gateway.core.session import SessionCore
from protocol.wire.browser import AudioMessage, BrowserError, VideoMessage, decode_down
from protocol.wire.controls import Shown
from protocol.wire.messages import Failed, Frame, Pcm, Samples
from tests.gateway.clients import sound_of

#: Time, and the message that went to the client.
Sent = tuple[float, AudioMessage | VideoMessage]

#: The sound of a clip waits for its frames as long as they may take.
PATIENT = {"sound_wait": 20.0, "sound_delay": 20.0}
OPTIONS = SessionOptions("ada", "calm", ClipShape(24, 12), 16000)


class Stages:
    """The stages behind a core: they give a clip's frames some time after its last sample."""

    def __init__(self, core: SessionCore) -> None:
        self.core = core
        self.have: dict[int, int] = {}
        self.due: list[tuple[float, int, int, str]] = []

    def take(
        self, messages: list[Pcm], now: float, delay: Callable[[int], float], fate: Callable[[int], str]
    ) -> None:
        for pcm in messages:
            new = len(pcm.samples) - pcm.history
            clip = pcm.pts // 8000 if new else (pcm.pts - 1) // 8000
            self.have[clip] = self.have.get(clip, 0) + new
            if self.have[clip] == 8000 or pcm.flush:
                self.due.append((now + delay(clip), pcm.epoch, clip, fate(clip)))

    def give(self, now: float) -> None:
        for at, epoch, clip, fate in [entry for entry in self.due if entry[0] <= now]:
            self.due.remove((at, epoch, clip, fate))
            if fate == "fail":
                self.core.clip_failed(Failed("s", epoch, clip, "gpu_worker", "overload", False), now)
            elif fate == "come":
                for index in range(12):
                    pts = clip * 8000 + index * 16000 // 24
                    self.core.add_frame(Frame("s", epoch, clip, index, 12, pts, 8, 8, b"j"), now)


def run(
    core: SessionCore,
    sound: Samples,
    seconds: float,
    delay: Callable[[int], float] = lambda clip: 0.2,
    fate: Callable[[int], str] = lambda clip: "come",
    step: float = 0.02,
    chunk: int = 320,
    begin: float = 0.0,
) -> list[Sent]:
    """Speak `sound` in real time from `begin` on; everything sent to the client as (time, message)."""
    stages, place, now = Stages(core), 0, begin
    sent: list[Sent] = []
    while now < begin + seconds:
        if place < len(sound):
            core.add_speech(sound[place : place + chunk], now)
            place += chunk
        stages.take(core.next_pcm(now, 0), now, delay, fate)
        stages.give(now)
        core.check_limits(now)
        for out in core.next_messages(now, True):
            message = decode_down(out.data, core.version)
            sent.append((now, message))
            if core.version == 2 and isinstance(message, VideoMessage):
                core.frame_shown(Shown(message.epoch, message.seq, message.index), now)
        now += step
    return sent


def heard(sent: list[Sent]) -> Samples:
    return np.concatenate([m.samples for _, m in sent if isinstance(m, AudioMessage)])


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_sound_is_whole_and_pictures_in_order_whatever_happens(data: st.DataObject) -> None:
    version = data.draw(st.sampled_from([1, 2]))
    count = data.draw(st.integers(1, 30_000))
    fates = data.draw(st.lists(st.sampled_from(["come", "come", "fail", "never"]), min_size=5, max_size=5))
    delays = data.draw(st.lists(st.floats(0.0, 1.5), min_size=5, max_size=5))
    core = SessionCore("s", version, OPTIONS, SessionLimits(clip=3.0, overtaken=2.0, **PATIENT), 0.0)
    sound = np.arange(count, dtype=np.float32) / np.float32(count)
    sent = run(core, sound, 12.0, lambda clip: delays[clip], lambda clip: fates[clip])
    assert np.array_equal(heard(sent), sound)
    clips = -(-count // 8000)
    come = [clip for clip in range(clips) if fates[clip] == "come"]
    frames = [m for _, m in sent if isinstance(m, VideoMessage)]
    assert core.frames_lost == 12 * (clips - len(come)) and core.clips_waiting == 0
    assert len(frames) == 12 * len(come) == core.frames_sent
    if version == 2:
        assert [(m.seq, m.index) for m in frames] == [(clip, i) for clip in come for i in range(12)]
        sounds = [m for _, m in sent if isinstance(m, AudioMessage)]
        assert [(m.seq, m.frames_follow) for m in sounds] == [(clip, clip in come) for clip in range(clips)]


def test_latency_is_from_the_last_sample_to_the_first_picture() -> None:
    core = SessionCore("s", 2, OPTIONS, SessionLimits(), 0.0)
    run(core, np.zeros(48000, np.float32), 4.0, delay=lambda clip: 0.3)
    assert core.latency.figures("x")["x_p50"] == pytest.approx(0.3, abs=0.03)
    assert core.frames_late == 0


def test_a_clip_that_never_comes_is_given_up_sooner_when_later_ones_are_there() -> None:
    for speak, bound in ((24000, 3.2), (8000, 4.0)):
        core = SessionCore("s", 2, OPTIONS, SessionLimits(clip=3.5, overtaken=2.0, **PATIENT), 0.0)
        sent = run(core, np.ones(speak, np.float32), 6.0, fate=lambda clip: "never" if clip == 0 else "come")
        at, first = sent[0]
        assert at == pytest.approx(bound, abs=0.1)
        assert isinstance(first, AudioMessage) and first.frames_follow is False
        assert "not complete within" in core.last_failure


def test_work_that_a_full_queue_gave_up_fails_its_clip() -> None:
    core = SessionCore("s", 2, OPTIONS, SessionLimits(), 0.0)
    core.add_speech(np.ones(12000, np.float32), 0.0)
    works = core.next_pcm(0.0, 0)
    core.pcm_pushed_out(works[0], 0.0)
    out = [sound_of(message.data, 2) for message in core.next_messages(0.0, True)]
    assert len(out) == 1 and not out[0].frames_follow and len(out[0].samples) == 8000
    core.pcm_pushed_out(works[1], 0.0)
    assert core.next_messages(0.0, True) == []
    core.add_speech(np.ones(4000, np.float32), 0.1)
    core.next_pcm(0.1, 0)
    core.check_limits(0.1)
    assert len(core.next_messages(0.1, True)) == 1 and core.frames_lost == 24


def test_pieces_grow_while_work_is_queued() -> None:
    core = SessionCore("s", 2, OPTIONS, SessionLimits(), 0.0)
    sizes = []
    for step in range(60):
        core.add_speech(np.ones(80, np.float32), step * 0.005)
        sizes += [len(pcm.samples) for pcm in core.next_pcm(step * 0.005, 9)]
    assert max(sizes) >= 1600 and len(sizes) <= 3


@pytest.mark.parametrize("frames", [4, 12])
def test_a_clip_goes_to_the_audio_worker_in_few_messages_and_a_flush_at_once(frames: int) -> None:
    options = SessionOptions("anna", "calm", ClipShape(24, frames), 16000)
    core = SessionCore("s", 2, options, SessionLimits(), 0.0)
    sent, woken, now = [], 0, 0.0
    for step in range(151):  # 3 s of a microphone, and a little more
        now = step * 0.02
        core.add_speech(np.full(320, step, np.float32), now)
        if core.speech_due:
            woken += 1
            sent += core.next_pcm(now, 0)
    assert len(sent) == woken == 1 + 18  # the first samples go at once
    # each clip's last message goes as soon as the clip is whole
    ends = {pcm.pts + len(pcm.samples) for pcm in sent}
    assert ends >= {k * frames * 16000 // 24 for k in range(1, 72 // frames + 1)}
    core.end_speech()
    rest = core.next_pcm(now, 0)
    assert rest[-1].flush
    whole = np.concatenate([pcm.samples for pcm in sent + rest])
    assert np.array_equal(whole, np.repeat(np.arange(151, dtype=np.float32), 320))


@pytest.mark.parametrize("flushed", ["by the client", "in a pause"])
def test_a_short_clip_goes_with_the_sound_after_it(flushed: str) -> None:
    """Clips of 3 frames look 20 ms ahead. The last one is whole, so a flush tells that nothing follows."""
    options = SessionOptions("anna", "calm", ClipShape(24, 3), 16000)
    core = SessionCore("s", 2, options, SessionLimits(), 0.0)
    ends, sent, now = list[float](), list[Pcm](), 0.0
    for step in range(200):  # 2 s of a microphone, which end with a clip
        now = step * 0.01
        core.add_speech(np.full(160, step, np.float32), now)
        if core.speech_due:
            made = core.next_pcm(now, 0)
            ends += [(pcm.pts + len(pcm.samples)) / 16000 for pcm in made[-1:]]
            sent += made
    # a clip ends after each 125 ms, and is sent when 20 ms more are there
    assert {0.145, 0.27, 0.395, 1.77, 1.895} <= {round(end, 3) for end in ends}
    if flushed == "by the client":
        core.end_speech()
    else:
        now += 1.0
    rest = core.next_pcm(now, 0)
    assert rest[-1].flush and len(rest[-1].samples) == 0
    assert core.next_pcm(now + 1, 0) == []
    whole = np.concatenate([pcm.samples for pcm in sent + rest])
    assert np.array_equal(whole, np.repeat(np.arange(200, dtype=np.float32), 160))


def test_a_session_is_silent_from_the_end_of_its_speech_on() -> None:
    """It may have to make room then, so speech that came in one burst counts until it was played."""
    core = SessionCore("s", 2, OPTIONS, SessionLimits(), 0.0)
    assert core.silent_for(3.0) == 3.0
    stages, silent = Stages(core), []
    core.add_speech(np.ones(12 * 16000, np.float32), 3.0)
    for step in range(150, 1000):
        now = step * 0.02
        stages.take(core.next_pcm(now, 0), now, lambda _: 0.1, lambda _: "come")
        stages.give(now)
        core.next_messages(now, True)
        silent.append((now, core.silent_for(now)))
    speaking = [now for now, seconds in silent if not seconds]
    assert max(speaking) == pytest.approx(15.2, abs=0.5)
    assert silent[-1][1] == pytest.approx(silent[-1][0] - max(speaking), abs=0.1)


def test_a_new_epoch_keeps_the_speech_that_was_not_in_a_clip_yet() -> None:
    core = SessionCore("s", 2, OPTIONS, SessionLimits(), 0.0)
    sound = np.arange(12000, dtype=np.float32) / np.float32(12000)
    core.add_speech(sound, 0.0)
    core.next_pcm(0.0, 0)
    for index in range(12):
        core.add_frame(Frame("s", 0, 0, index, 12, index * 16000 // 24, 8, 8, b"j"), 0.1)
    core.restart(SessionOptions("bruno", "calm", ClipShape(12, 6), 16000), 0.1)
    works = core.next_pcm(0.1, 0)
    assert [(w.epoch, w.avatar, w.fps, w.clip_frames, w.pts) for w in works] == [(1, "bruno", 12, 6, 0)]
    assert np.array_equal(works[0].samples, sound) and works[0].history == 8000
    assert not core.add_frame(Frame("s", 0, 0, 0, 12, 0, 8, 8, b"j"), 0.1) and core.clip_complete(0, 0)
    [flush] = [w for w in core.next_pcm(1.0, 0) if w.flush]
    for index in range(6):
        core.add_frame(Frame("s", 1, 0, index, 6, flush.pts, 8, 8, b"j"), 1.1)
    audio = sound_of(core.next_messages(1.1, True)[0].data, 2)
    assert (audio.epoch, audio.position, len(audio.samples)) == (1, 8000, 4000)


def test_a_sample_and_a_flush_again_and_again_cost_no_more_than_real_time() -> None:
    core = SessionCore("s", 2, OPTIONS, SessionLimits(), 0.0)
    clips = 0
    for step in range(1000):
        core.add_speech(np.ones(1, np.float32), step * 0.01)
        core.end_speech()
        clips += sum(pcm.flush for pcm in core.next_pcm(step * 0.01, 0))
    assert clips <= (10 + 1) * 1.02 / 0.5 + 2


def test_fatal_failures_and_stalled_clients_end_the_session() -> None:
    core = SessionCore("s", 2, OPTIONS, SessionLimits(shown=1.0), 0.0)
    core.clip_failed(Failed("s", 0, 0, "gpu_worker", "broken", True), 0.0)
    assert isinstance(core.fatal, BrowserError) and core.fatal.close_code == 1011
    core = SessionCore("s", 2, OPTIONS, SessionLimits(shown=1.0), 0.0)
    core.add_speech(np.ones(8000, np.float32), 0.0)
    core.next_pcm(0.0, 0)
    core.add_frame(Frame("s", 0, 0, 0, 12, 0, 8, 8, b"j"), 0.1)
    core.next_messages(0.1, True)
    core.check_limits(1.0)
    assert core.fatal is None
    core.check_limits(1.2)
    assert core.fatal is not None and core.fatal.code == "slow_client"


def test_a_new_epoch_takes_along_the_clips_that_were_not_played_yet() -> None:
    core = SessionCore("s", 2, OPTIONS, SessionLimits(), 0.0)
    sound = np.arange(36000, dtype=np.float32) / np.float32(36000)
    for start in range(0, 36000, 4000):
        core.add_speech(sound[start : start + 4000], start / 16000)
        core.next_pcm(start / 16000, 0)
    for index in range(12):
        core.add_frame(Frame("s", 0, 0, index, 12, index * 16000 // 24, 8, 8, b"j"), 2.3)
    core.next_messages(2.3, True)
    core.restart(OPTIONS, 2.3)
    works = core.next_pcm(2.3, 0)
    assert [work.pts for work in works] == [0, 8000, 16000, 24000]
    assert [work.history for work in works] == [8000, 0, 0, 0]
    spoken = np.concatenate([work.samples for work in works])
    assert np.array_equal(spoken, sound)
    assert core.frames_lost == 0


def test_the_history_is_of_at_most_a_second_and_a_half_and_has_the_pauses() -> None:
    core = SessionCore("s", 2, OPTIONS, SessionLimits(), 0.0)
    sent = run(core, np.ones(40000, np.float32), 5.0)
    assert len(heard(sent)) == 40000
    run(core, np.ones(2000, np.float32), 5.0, begin=5.0)
    core.restart(OPTIONS, 10.0)
    core.add_speech(np.ones(8000, np.float32), 10.0)
    first = core.next_pcm(10.0, 0)[0]
    assert first.history == 24000
    # the last clip held 2000 samples and was padded up to its 8000 for the model
    assert np.array_equal(first.samples[:24000], [1.0] * 16000 + [1.0] * 2000 + [0.0] * 6000)


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_sound_is_whole_and_never_far_behind_however_late_the_frames_are(data: st.DataObject) -> None:
    delays = data.draw(st.lists(st.floats(0.0, 9.0), min_size=12, max_size=12))
    core = SessionCore("s", 2, OPTIONS, SessionLimits(), 0.0)
    sound = np.arange(96_000, dtype=np.float32) / np.float32(96_000)
    sent = run(core, sound, 16.0, lambda clip: delays[clip])
    assert np.array_equal(heard(sent), sound)
    for at, message in sent:
        if isinstance(message, AudioMessage):
            spoken = (message.position + len(message.samples)) / 16000
            assert at - spoken < SessionLimits().sound_delay + 0.2
    frames = [(m.seq, m.index) for _, m in sent if isinstance(m, VideoMessage)]
    assert frames == sorted(set(frames))
    assert len(frames) + core.frames_lost == 144 and core.clips_waiting == 0


def test_live_sound_that_comes_late_is_shortened_and_its_positions_tell() -> None:
    core = SessionCore("s", 2, OPTIONS, SessionLimits(), 0.0)
    core.live = True
    t = np.arange(16000 * 12) / 16000
    sound = (0.2 * np.sin(2 * np.pi * 150 * t) * (t % 0.6 < 0.4)).astype(np.float32)
    stages, sent, put = Stages(core), [], 0
    for step in range(500):
        now = step * 0.02
        if not 100 <= step < 300 and put < len(sound):  # 2 s to 6 s: the network stands still
            count = int(now * 16000) + 320 - put
            core.add_speech(sound[put : put + count], now)
            put += count
        stages.take(core.next_pcm(now, 0), now, lambda clip: 0.1, lambda clip: "come")
        stages.give(now)
        core.check_limits(now)
        sent += [(now, decode_down(out.data, 2)) for out in core.next_messages(now, True)]
        for last in [m for _, m in sent if isinstance(m, VideoMessage)][-1:]:
            core.frame_shown(Shown(last.epoch, last.seq, last.index), now)
    sounds = [(at, m) for at, m in sent if isinstance(m, AudioMessage)]
    came = sum(len(m.samples) for _, m in sounds) / 16000
    assert core.input.seconds_left_out == pytest.approx(2.0, abs=0.1)
    gone = core.input.seconds_faster + core.input.seconds_left_out
    assert came + gone == pytest.approx(core.received / 16000, abs=0.6)
    assert [m.position for _, m in sounds] == sorted(m.position for _, m in sounds)
    late = {at: at - (m.position + len(m.samples)) / 16000 for at, m in sounds}
    before = max(delay for at, delay in late.items() if at < 2)
    assert all(delay < before + 0.25 for at, delay in late.items() if at > 8)


def test_the_sound_goes_on_through_an_outage_and_the_frames_come_back_after_it() -> None:
    core = SessionCore("s", 2, OPTIONS, SessionLimits(), 0.0)
    sound = np.arange(96_000, dtype=np.float32) / np.float32(96_000)
    stages, sent = Stages(core), []
    for step in range(400):
        now = step * 0.02
        if step < 300:
            core.add_speech(sound[step * 320 : step * 320 + 320], now)
        if step == 80:  # 1.6 s: all that the stages had is gone
            stages.due.clear()
            core.begin_outage("the face model stopped and is starting again")
        if step == 180:  # 3.6 s
            stages.have.clear()
            core.restart(OPTIONS, now)
        stages.take(core.next_pcm(now, 0), now, lambda clip: 0.2, lambda clip: "come")
        stages.give(now)
        core.check_limits(now)
        sent += [(now, decode_down(out.data, 2)) for out in core.next_messages(now, True)]
        last = [m for _, m in sent if isinstance(m, VideoMessage)][-1:]
        for shown in last:
            core.frame_shown(Shown(shown.epoch, shown.seq, shown.index), now)
    assert np.array_equal(heard(sent), sound)
    sounds = [(at, m) for at, m in sent if isinstance(m, AudioMessage)]
    # The wait before each clip's sound, less the time that the one before it takes.
    silences = [b - a - len(m.samples) / 16000 for (a, m), (b, _) in pairwise(sounds)]
    assert max(silences) < 0.2
    without = [at for at, m in sent if isinstance(m, VideoMessage)]
    gap = max(b - a for a, b in pairwise(without))
    assert 1.9 < gap < 3.0 and core.epoch == 1
