"""Play-out: version 1 keeps time, version 2 follows the frames that the client has shown."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.audio_log import ClipAudio, ClipShape
from gateway.core.players import AckedPlayer, ClipSound, OutgoingMessage, PacedPlayer, Player
from protocol.wire.browser import AudioMessage, VideoMessage, decode_down
from protocol.wire.controls import Shown
from tests.gateway.clients import frame_of, sound_of

SHAPE = ClipShape(24, 12)


def sound(seq: int, joined: bool = True) -> ClipSound:
    samples = np.full(8000, seq, np.float32)
    return ClipSound(
        AudioMessage(samples, 0, seq, SHAPE.pts(seq), seq * 8000),
        ClipAudio(seq, SHAPE.pts(seq), seq * 8000, samples, 0.0, joined),
    )


def frame(seq: int, index: int, size: int = 1000) -> VideoMessage:
    return VideoMessage(b"j" * size, 0, seq, index, 12, SHAPE.pts(seq) + index * 16000 // 24)


def push_clip(player: Player, seq: int, now: float, joined: bool = True, size: int = 1000) -> None:
    player.push(sound(seq, joined and seq > 0), now)
    for index in range(12):
        player.push(frame(seq, index, size), now)


def kinds(out: list[OutgoingMessage], version: int) -> list[str]:
    return [type(decode_down(o.data, version)).__name__[0] for o in out]


def test_version_1_sends_sound_then_pictures_at_their_times() -> None:
    player = PacedPlayer(SHAPE)
    push_clip(player, 0, 10.0)
    out = player.pull(10.0, True)
    assert kinds(out, 1) == ["A", "V"] and out[1].first_frame_of == 0
    wait = player.wait(10.0)
    assert wait is not None and 0.041 < wait < 0.042
    assert player.pull(10.04, True) == []
    assert len(player.pull(10.042, True)) == 1
    assert len(player.pull(10.5, True)) == 10
    assert player.wait(10.5) is None and player.clock.late_frames == 0


@given(st.lists(st.floats(0.0, 0.7), min_size=1, max_size=12))
def test_version_1_never_plays_early_and_keeps_half_a_second_a_clip(gaps: list[float]) -> None:
    player = PacedPlayer(SHAPE, max_wait=100)
    now, sent = 0.0, []
    for seq, gap in enumerate(gaps):
        until = now + gap
        while (wait := player.wait(now)) is not None and now + wait <= until:
            now += wait + 1e-9
            sent += [(now, decode_down(o.data, 1)) for o in player.pull(now, True)]
        now = until
        push_clip(player, seq, now)
    while (wait := player.wait(now)) is not None:
        now += wait + 1e-9
        sent += [(now, decode_down(o.data, 1)) for o in player.pull(now, True)]
    starts = [at for at, m in sent if isinstance(m, AudioMessage)]
    assert len(starts) == len(gaps) and len(sent) == 13 * len(gaps)
    assert all(b - a >= 0.5 - 1e-6 for a, b in pairwise(starts))


def test_a_late_clip_makes_late_frames_and_a_pause_does_not() -> None:
    player = AckedPlayer(SHAPE)
    push_clip(player, 0, 0.0, joined=False)
    push_clip(player, 1, 0.55)
    assert player.clock.late_frames == 0
    push_clip(player, 2, 1.35)  # its turn was 1.05
    assert player.clock.late_frames == 8
    push_clip(player, 3, 9.0, joined=False)
    assert player.clock.late_frames == 8


def test_version_1_bounds_its_delay_by_dropping_pictures_not_sound() -> None:
    player = PacedPlayer(SHAPE, max_wait=1.0)
    for seq in range(6):
        push_clip(player, seq, 0.0)
    out = []
    for step in range(400):
        out += player.pull(step * 0.01, True)
    sounds = [int(sound_of(o.data, 1).samples[0]) for o in out if not o.is_frame]
    assert sounds == list(range(6))
    assert sum(o.is_frame for o in out) == 36 and player.dropped == 36
    assert player.pull(1.6, True) == []


def test_version_1_drops_pictures_for_a_full_connection() -> None:
    player = PacedPlayer(SHAPE)
    push_clip(player, 0, 0.0)
    out = player.pull(0.25, False)
    assert kinds(out, 1) == ["A"] and player.dropped == 7
    assert player.stalled(5.25) == 5.0
    assert len(player.pull(0.5, True)) == 5 and player.stalled(0.5) == 0.0


def test_version_2_sends_at_once_and_carries_positions() -> None:
    player = AckedPlayer(SHAPE)
    push_clip(player, 3, 0.0)
    out = player.pull(0.0, True)
    assert [decode_down(o.data, 2).pts for o in out[:3]] == [24000, 24000, 24666]
    second = frame_of(out[2].data, 2)
    assert sound_of(out[0].data, 2).position == 24000 and second.index == 1 and second.count == 12


def test_newest_pictures_win_for_a_slow_client() -> None:
    player = AckedPlayer(SHAPE, window=1.0, queue=0.5)
    out = []
    for seq in range(8):
        push_clip(player, seq, seq * 0.5)
        out += player.pull(seq * 0.5, True)
    assert sum(o.is_frame for o in out) == 24
    assert sum(not o.is_frame for o in out) == 8
    # none wait for one that has taken nothing for so long
    assert player.dropped == 6 * 12
    player.frame_shown(Shown(0, 1, 11), 4.0)
    push_clip(player, 8, 4.0)
    player.push(sound(9), 4.0)
    newest = [decode_down(o.data, 2) for o in player.pull(4.0, True)]
    assert {m.seq for m in newest} == {8, 9}


def test_frames_wait_for_a_client_that_is_there() -> None:
    player = AckedPlayer(SHAPE)
    for seq in range(4):
        push_clip(player, seq, 0.0)
    assert sum(o.is_frame for o in player.pull(0.0, True)) == 24
    player.frame_shown(Shown(0, 1, 11), 0.6)
    assert [o.is_frame for o in player.pull(0.6, True)] == [True] * 24
    assert player.dropped == 0


def test_bytes_in_flight_are_bounded() -> None:
    player = AckedPlayer(SHAPE, max_bytes=100_000)
    push_clip(player, 0, 0.0, size=50_000)
    assert sum(o.is_frame for o in player.pull(0.0, True)) == 2
    assert player._flight_bytes < 100_000 + 50_000
    player.frame_shown(Shown(0, 0, 1), 0.1)
    assert player._flight_bytes == 0
    assert sum(o.is_frame for o in player.pull(0.1, True)) == 2


def test_sound_that_overtook_pictures_does_not_hide_their_acknowledgement() -> None:
    player = AckedPlayer(SHAPE)
    push_clip(player, 0, 0.0)
    player.push(sound(1), 0.0)  # its pictures failed
    player.pull(0.0, True)
    player.frame_shown(Shown(0, 0, 11), 1.0)
    assert player.stalled(100.0) == 0.0 and player._flight_bytes == 32032
    push_clip(player, 2, 1.0)
    player.pull(1.0, True)
    player.frame_shown(Shown(0, 2, 11), 1.5)
    assert player._flight_bytes == 0


def test_a_client_that_shows_nothing_is_stalled_and_an_idle_one_is_not() -> None:
    player = AckedPlayer(SHAPE)
    assert player.stalled(100.0) == 0.0
    push_clip(player, 0, 100.0)
    player.pull(100.0, True)
    assert player.stalled(104.0) == 4.0
    player.frame_shown(Shown(0, 0, 5), 105.0)
    assert player.stalled(106.0) == 1.0
    player.frame_shown(Shown(0, 0, 11), 106.0)
    assert player.stalled(900.0) == 0.0


def coded_clip(seq: int, codec: str = "h264") -> list[VideoMessage]:
    return [
        VideoMessage(b"c", 0, seq, index, 12, SHAPE.pts(seq) + index * 16000 // 24, codec, index == 0)
        for index in range(12)
    ]


def sent_places(out: list[OutgoingMessage]) -> list[tuple[int, int]]:
    return [(m.seq, m.index) for o in out if isinstance(m := decode_down(o.data, 2), VideoMessage)]


def test_a_slow_client_gets_no_coded_frame_that_it_cannot_decode() -> None:
    player = AckedPlayer(SHAPE, window=0.25, queue=0.6)  # six frames may be in flight
    for seq in range(3):
        player.push(sound(seq), 0.5 * seq)
        for each in coded_clip(seq):
            player.push(each, 0.5 * seq)
    first = sent_places(player.pull(1.0, True))
    assert first == [(0, index) for index in range(6)]
    # the rest of clip 0 is too old now: what comes next begins with a key frame
    player.frame_shown(Shown(0, 0, 5), 1.0)
    assert sent_places(player.pull(1.0, True)) == [(1, index) for index in range(6)]
    player.frame_shown(Shown(0, 1, 5), 1.1)
    assert sent_places(player.pull(1.1, True)) == [(1, index) for index in range(6, 12)]
    assert player.dropped == 6


def test_frames_of_two_encoders_are_mixed_only_where_they_can_be_decoded() -> None:
    jpegs = [frame(0, index) for index in range(12)]
    player = AckedPlayer(SHAPE)
    # an encoder without video begins the clip, and one with video goes on: nothing refers to a JPEG
    for each in [*jpegs[:4], *coded_clip(0)[4:], *coded_clip(1)[:5], frame(1, 5), *coded_clip(1)[6:]]:
        player.push(each, 0.0)
    places = sent_places(player.pull(0.0, True))
    assert places == [(0, i) for i in range(4)] + [(1, i) for i in range(6)]
