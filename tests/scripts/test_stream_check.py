"""The client's checks: a faithful stream passes, and each kind of damage is named."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.wire.browser import AudioMessage, VideoMessage, encode_audio, encode_video
from scripts.talk.stream_check import Report, StreamCheck

Samples = npt.NDArray[np.float32]
#: A change of a stream that a client must notice.
Damage = Callable[[list[bytes]], list[bytes]]

JPEG = b"\xff\xd8picture\xff\xd9"
rng = np.random.default_rng(7)


def stream(samples: Samples, fps: int, clip_frames: int, version: int, *, mark: bool = False) -> list[bytes]:
    """A faithful server's messages for `samples` at 16 kHz: for each clip its sound, then its pictures."""
    clip = clip_frames * 16000 // fps
    messages = []
    for seq, begin in enumerate(range(0, len(samples), clip)):
        sound = samples[begin : begin + clip]
        messages.append(encode_audio(AudioMessage(sound, 0, seq, begin, begin), version))
        for index in range(clip_frames):
            pts = (seq * clip_frames + index) * 16000 // fps
            comment = f"echomimic pts={pts}".encode()
            jpeg = JPEG[:2] + b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment + JPEG[2:]
            picture = VideoMessage(jpeg if mark else JPEG, 0, seq, index, clip_frames, pts)
            messages.append(encode_video(picture, version))
    return messages


def run(samples: Samples, messages: list[bytes], fps: int, clip_frames: int, version: int) -> Report:
    """The report of a client that sent `samples` and received `messages` in time."""
    check = StreamCheck(version, fps, clip_frames)
    clip = clip_frames * 16000 // fps
    for begin in range(0, len(samples), 320):
        part = len(samples[begin : begin + 320])
        check.sent(part, (begin + part) / 16000)
    number = 0
    for message in messages:
        pictures = message[0] == 1
        check.received(message, number / fps + clip / 16000 + 0.2)
        number += pictures
    return check.report(samples)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60000), st.sampled_from([(24, 12), (12, 6), (8, 4), (25, 12)]), st.sampled_from([1, 2]))
def test_a_faithful_stream_passes(count: int, shape: tuple[int, int], version: int) -> None:
    samples = rng.uniform(-1, 1, count).astype(np.float32)
    report = run(samples, stream(samples, *shape, version), *shape, version)
    assert report.problems == []
    assert report.frames_received == report.frames_expected
    assert report.echoed == count
    assert report.frames_late == 0


@pytest.mark.parametrize("version", [1, 2])
def test_clips_with_fewer_frames_are_whole(version: int) -> None:
    samples = rng.uniform(-1, 1, 32000).astype(np.float32)
    full, half = (stream(samples, fps, fps // 2, version, mark=True) for fps in (24, 12))
    mixed = full[: 2 * 13] + half[2 * 7 :]  # a clip's sound, and its 12 or 6 pictures
    report = run(samples, mixed, 24, 12, version)
    assert report.problems == [] and report.frames_expected == 36
    broken = run(samples, mixed[:-2] + mixed[-1:], 24, 12, version)
    assert any("frame 46 came out of order" in problem for problem in broken.problems)


def test_a_session_whose_first_clip_begins_later_is_whole() -> None:
    """As for a client whose clips are made between those of others."""
    samples = rng.uniform(-1, 1, 28000).astype(np.float32)
    silence = 4 * 16000 // 24  # which this client did not send
    full = stream(np.concatenate([np.zeros(silence, np.float32), samples]), 24, 12, 2)
    sounds = [message for message in full if message[0] == 2]
    pictures = [message for message in full if message[0] == 1]
    clips = [0, 8000 - silence, 16000 - silence, 24000 - silence, 32000 - silence]
    messages: list[bytes] = []
    for seq in range(len(sounds)):
        begin, end = clips[seq], clips[seq + 1]
        pts = silence if seq == 0 else 8000 * seq
        messages.append(encode_audio(AudioMessage(samples[begin:end], 0, seq, pts, begin), 2))
        messages += pictures[12 * seq + (4 if seq == 0 else 0) : 12 * (seq + 1)]
    report = run(samples, messages, 24, 12, 2)
    assert report.problems == []
    assert report.frames_received == report.frames_expected == 48 - 4
    assert report.frames_late == 0
    without_one = messages[:1] + messages[2:]
    assert any("after a gap" in problem for problem in run(samples, without_one, 24, 12, 2).problems)


def test_latency_counts_from_a_clips_last_sample() -> None:
    samples = rng.uniform(-1, 1, 32000).astype(np.float32)
    report = run(samples, stream(samples, 24, 12, 1), 24, 12, 1)
    assert report.latency_median == pytest.approx(0.2, abs=0.001)
    assert report.received_fps == pytest.approx(24)
    # A frame's sample is sent with the next 20 ms of sound, and the frame comes 0.7 s after it was spoken.
    assert report.sound_mean == pytest.approx(0.69, abs=0.003)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda m: m[:5] + m[6:], "frame"),
        (lambda m: [*m[:5], m[5], *m[5:]], "twice"),
        (lambda m: [*m[:5], m[6], m[5], *m[7:]], "out of order"),
        (lambda m: m[1:], "echoed"),
        (lambda m: [m[0][:-1] + bytes([m[0][-1] ^ 1]), *m[1:]], "differs"),
        (lambda m: [*m[:5], m[5][:-2], *m[6:]], "whole JPEG"),
    ],
)
def test_damage_is_named(version: int, damage: Damage, words: str) -> None:
    samples = rng.uniform(0.1, 1, 16000).astype(np.float32)
    messages = damage(stream(samples, 24, 12, version, mark=True))
    report = run(samples, messages, 24, 12, version)
    assert any(words in problem for problem in report.problems), report.problems


def test_without_marks_version_1_says_that_order_was_not_seen() -> None:
    samples = rng.uniform(-1, 1, 8000).astype(np.float32)
    assert "count and" in run(samples, stream(samples, 24, 12, 1), 24, 12, 1).order_by
    assert "comment" in run(samples, stream(samples, 24, 12, 1, mark=True), 24, 12, 1).order_by


def test_version_1_sees_whole_clips_out_of_order_by_their_sound() -> None:
    samples = rng.uniform(0.1, 1, 24000).astype(np.float32)
    messages = stream(samples, 24, 12, 1)
    moved = [*messages[:5], *messages[6:14], messages[5], *messages[14:]]  # a picture into the next clip
    assert any("came after 11 frames" in p for p in run(samples, moved, 24, 12, 1).problems)
    swapped = [*messages[13:26], *messages[:13], *messages[26:]]
    assert any("differs" in p for p in run(samples, swapped, 24, 12, 1).problems)


def test_a_late_clip_counts_its_late_frames() -> None:
    check = StreamCheck(2, 24, 12)
    samples = np.ones(16000, np.float32)
    check.sent(16000, 1.0)
    number = 0
    for message in stream(samples, 24, 12, 2):
        check.received(message, 0.7 if number < 12 else 1.5)  # the second clip is due from 1.35 on
        number += message[0] == 1
    assert check.report(samples).frames_late == 4
