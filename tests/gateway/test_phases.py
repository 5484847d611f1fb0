"""Sessions that begin together are spread over the time of a clip. Sound and pictures stay whole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audio_worker.ring import SpeechStream
from gateway.core.audio_log import AudioLog, ClipShape
from gateway.core.options import SessionLimits, SessionOptions
from gateway.core.phases import ClipPhases
from gateway.core.session import SessionCore
from protocol.wire.browser import AudioMessage, VideoMessage, decode_down
from protocol.wire.controls import Shown
from protocol.wire.messages import Frame, Pcm, Samples
from protocol.wire.video import H264

SHAPE = ClipShape(24, 12)
OPTIONS = SessionOptions("ada", "calm", SHAPE, 16000)


def places(phases: ClipPhases, count: int, shape: ClipShape = SHAPE) -> list[float]:
    """Where in a clip's time the clips of sessions that all begin at once are due, in frames."""
    silences = [phases.frames_of_silence(f"s{i}", shape, 0.5, 0.0) for i in range(count)]
    return sorted((0.5 - frames / shape.fps) % shape.seconds * shape.fps for frames in silences)


def gaps(found: list[float], frames: int = 12) -> list[int]:
    return [round(b - a) for a, b in pairwise([*found, found[0] + frames])]


@pytest.mark.parametrize(
    ("sessions", "capacity", "least"),
    [(2, 0, 6), (3, 3, 3), (4, 3, 3), (4, 4, 3), (5, 5, 2), (3, 5, 2), (6, 6, 2), (12, 0, 0)],
)  # fmt: skip
def test_sessions_that_begin_at_once_are_apart(sessions: int, capacity: int, least: int) -> None:
    found = places(ClipPhases(sessions=lambda: capacity), sessions)
    assert min(gaps(found)) == least


def test_each_worker_has_its_own_sessions() -> None:
    phases = ClipPhases(lambda: 4, lambda: 12)
    found = places(phases, 12)
    assert [round(place) for place in found] == [0] * 4 + [6] * 4 + [9] * 4


def test_a_session_alone_and_one_that_is_apart_already_get_no_silence() -> None:
    phases = ClipPhases(sessions=lambda: 2)
    assert phases.frames_of_silence("a", SHAPE, 0.5, 0.0) == 0
    assert phases.frames_of_silence("b", SHAPE, 0.75, 0.25) == 0
    assert phases.frames_of_silence("a", SHAPE, 0.99, 0.5) == 0  # its own clips do not count


def test_sessions_that_are_silent_or_over_do_not_count() -> None:
    phases = ClipPhases()
    phases.frames_of_silence("a", SHAPE, 0.5, 0.0)
    assert phases.frames_of_silence("b", SHAPE, 3.5, 3.0) == 0
    phases.forget("b")
    assert phases.frames_of_silence("c", SHAPE, 3.5, 3.0) == 0
    phases.clip_due("c", SHAPE, 3.5)
    assert phases.frames_of_silence("d", SHAPE, 4.0, 3.6) == 6


def test_clips_of_another_length_do_not_count() -> None:
    phases = ClipPhases()
    phases.frames_of_silence("a", ClipShape(24, 4), 0.5, 0.0)
    assert phases.frames_of_silence("b", SHAPE, 0.5, 0.0) == 0
    assert places(ClipPhases(sessions=lambda: 3), 3, ClipShape(24, 4)) == pytest.approx([0, 2, 3], abs=1e-6)


@given(st.integers(0, 10), st.sampled_from([8000, 11025, 16000, 44100, 48000]), st.integers(1, 40_000))
def test_the_log_keeps_sound_and_positions(frames: int, rate: int, count: int) -> None:
    log = AudioLog(SHAPE, rate)
    sound = np.arange(1, count + 1, dtype=np.float32)
    log.begin_with_silence(frames)
    silence = log.partial
    pieces = log.append(sound[: count // 2], 0.0) + log.append(sound[count // 2 :], 0.0)
    if (flushed := log.flush(0.0)) is not None:
        pieces.append(flushed)
    assert np.array_equal(np.concatenate([piece.samples for piece in pieces]), sound)
    assert 0 <= frames * 16000 // 24 - pieces[0].pts < 16000 / rate + 1
    clips = [log.release(clip) for clip in range(log.clip)]
    assert np.array_equal(np.concatenate([clip.samples for clip in clips]), sound)
    assert [clip.silence for clip in clips] == [silence] + [0] * (len(clips) - 1)
    assert [clip.pts for clip in clips][1:] == [SHAPE.pts(clip) for clip in range(1, len(clips))]
    first, whole = clips[0], log.bound(1)
    assert first.pts == pieces[0].pts and first.position == 0
    assert len(first.samples) == min(count, whole - silence)
    # the sound that the model heard, silence in front and padding behind
    heard = np.concatenate([np.zeros(silence), sound, np.zeros(log.bound(len(clips)) - silence - count)])
    assert np.array_equal(log.history, heard[-int(1.5 * rate) :])


@pytest.mark.parametrize("rate", [16000, 48000])
def test_the_audio_worker_hears_silence_in_front(rate: int) -> None:
    """Also after a pause, where it had sound before."""
    stream = SpeechStream(rate, 24, 12)
    log = AudioLog(SHAPE, rate)
    sound = np.ones(rate, np.float32)
    windows = []
    for _ in range(2):
        log.begin_with_silence(4)
        pieces = log.append(sound, 0.0)
        flushed = log.flush(0.0)
        assert flushed is not None
        for piece in [*pieces, flushed]:
            windows += stream.add_chunk(piece.samples, piece.pts, piece.flush)
    assert [window.seq for window in windows] == [0, 1, 2, 3, 4, 5]
    assert [window.pts for window in windows] == [8000 * seq for seq in range(6)]
    for first in (0, 3):
        clip = windows[first].samples[-8000:]
        assert np.abs(clip[:2600]).max() < 0.05
        assert clip[2800:].min() > 0.9
        assert windows[first + 1].samples[-8000:].min() > 0.9
    assert np.abs(windows[2].samples[-8000:][-5000:]).max() < 0.05


class Room:
    """Sessions that share one GPU, which makes one clip at a time, the longest waiting one first."""

    def __init__(self, cores: list[SessionCore], clip_seconds: float) -> None:
        self.cores = cores
        self.seconds = clip_seconds
        self.sent: dict[str, list[tuple[float, AudioMessage | VideoMessage]]] = {c.name: [] for c in cores}
        self._queue: list[tuple[SessionCore, int]] = []
        self._making: tuple[float, SessionCore, int] | None = None

    def run(self, sound: Samples, seconds: float, step: float = 0.01) -> None:
        for tick in range(round(seconds / step)):
            now = tick * step
            for core in self.cores:
                core.add_speech(sound[tick * 160 : (tick + 1) * 160], now)
                if tick == len(sound) // 160:
                    core.end_speech()
                self._take(core, core.next_pcm(now, 0))
            self._work(now)
            for core in self.cores:
                core.check_limits(now)
                for out in core.next_messages(now, True):
                    message = decode_down(out.data, 2)
                    self.sent[core.name].append((now, message))
                    if isinstance(message, VideoMessage):
                        core.frame_shown(Shown(message.epoch, message.seq, message.index), now)

    def _take(self, core: SessionCore, messages: list[Pcm]) -> None:
        for pcm in messages:
            clip = pcm.pts // 8000 if len(pcm.samples) else (pcm.pts - 1) // 8000
            at = pcm.pts + len(pcm.samples) - 8000 * clip
            if at == 8000 or pcm.flush:
                self._queue.append((core, clip))

    def _work(self, now: float) -> None:
        if self._making is not None and now >= self._making[0]:
            _, core, clip = self._making
            self._making = None
            for index in range(12):
                pts = clip * 8000 + index * 16000 // 24
                core.add_frame(Frame(core.name, core.epoch, clip, index, 12, pts, 8, 8, b"j"), now)
        if self._making is None and self._queue:
            self._making = (now + self.seconds, *self._queue.pop(0))


def session(name: str, phases: ClipPhases | None, **changes: object) -> SessionCore:
    options = SessionOptions(**{**OPTIONS.__dict__, **changes})
    core = SessionCore(name, 2, options, SessionLimits(), 0.0)
    if phases is not None:
        core.phases = phases
    return core


def medians(room: Room) -> list[float]:
    return [core.latency.figures("x")["x_p50"] for core in room.cores]


def test_three_sessions_that_begin_together_have_even_latencies() -> None:
    sound = np.arange(1, 16000 * 6 + 1, dtype=np.float32) / np.float32(1e5)
    together = Room([session(f"s{i}", None) for i in range(3)], 0.12)
    together.run(sound, 8.0)
    assert max(medians(together)) > 2.5 * min(medians(together))
    phases = ClipPhases(sessions=lambda: 3)
    spread = Room([session(f"s{i}", phases) for i in range(3)], 0.12)
    spread.run(sound, 8.0)
    assert max(medians(spread)) < 1.3 * min(medians(spread))
    assert max(medians(spread)) < 1.2 * min(medians(together))
    for core in spread.cores:
        assert core.frames_late == core.frames_lost == core.frames_dropped == 0
        sent = [message for _, message in spread.sent[core.name]]
        sounds = [message for message in sent if isinstance(message, AudioMessage)]
        frames = [message for message in sent if isinstance(message, VideoMessage)]
        assert np.array_equal(np.concatenate([one.samples for one in sounds]), sound)
        assert [one.position for one in sounds] == list(
            np.cumsum([0] + [len(one.samples) for one in sounds[:-1]])
        )
        first = sounds[0].pts
        assert sounds[0].pts == frames[0].pts == 8000 - len(sounds[0].samples)
        assert [one.pts for one in sounds[1:]] == [8000 * seq for seq in range(1, len(sounds))]
        # every picture from the first sample on, each at its own place
        assert [one.pts for one in frames] == [
            pts for i in range(12 * len(sounds)) if (pts := i * 16000 // 24) >= first
        ]


def test_a_first_clip_waits_as_long_as_its_silence_lasts() -> None:
    """So the clip after it, which comes no sooner, is not late in a client that plays at once."""
    phases = ClipPhases(sessions=lambda: 3)
    room = Room([session(f"s{i}", phases) for i in range(3)], 0.12)
    room.run(np.ones(16000 * 3, np.float32), 5.0)
    for core in room.cores:
        sounds = [(at, one) for at, one in room.sent[core.name] if isinstance(one, AudioMessage)]
        start = sounds[0][0] - sounds[0][1].pts / 16000
        for at, one in sounds[1:]:
            assert at <= start + one.pts / 16000 + 0.13


def test_sound_that_comes_at_once_and_coded_pictures_are_left_alone() -> None:
    for changes, chunk in (({}, 16000), ({"codec": H264}, 320)):
        phases = ClipPhases()
        phases.clip_due("other", SHAPE, 0.5)
        core = session("s", phases, **changes)
        core.add_speech(np.ones(chunk, np.float32), 0.11)
        assert core.next_pcm(0.11, 0)[0].pts == 0
    core = session("s", phases)
    core.add_speech(np.ones(320, np.float32), 0.0)
    assert core.next_pcm(0.11, 0)[0].pts == 8 * 16000 // 24


def test_a_client_of_version_1_is_left_alone() -> None:
    phases = ClipPhases()
    phases.clip_due("other", SHAPE, 0.5)
    core = SessionCore("s", 1, OPTIONS, SessionLimits(), 0.0)
    core.phases = phases
    core.add_speech(np.ones(320, np.float32), 0.0)
    assert core.next_pcm(0.11, 0)[0].pts == 0
