"""The length of clips: which are tried, and the shortest that a simulated machine holds."""

from __future__ import annotations

import pytest

from gpu_worker.rate.clip_length import (
    MOST_SAVED,
    MOST_SAVED_BY_SIZE,
    SHORT_LENGTHS,
    SPARE_LENGTH,
    SPARE_SHARE,
    Pace,
    lengths_to_try,
    next_after,
    paces,
    spare_length,
)
from gpu_worker.rate.trial import MAX_SHARE, RateChoice, RateTrial
from protocol.process.settings import load_settings
from protocol.wire.clock import FRAME_RATES, frames_of_clip


def choice(
    per_clip: float,
    per_frame: float,
    lengths: tuple[int, ...] = (4, 6, 12),
    fine: float | None = None,
    spare: int | None = None,
) -> tuple[RateChoice, int]:
    """The trial's choice on a machine of these seconds, and how many attempts it took.

    `fine`: seconds more of a frame of twice the side, None where there is one size.
    """
    heads = (False,) if fine is None else (True, False)
    trial = RateTrial(MAX_SHARE, "a clip", lengths=lengths, heads=heads, spare=spare)
    now, in_flight = 0.0, list[int]()
    while trial.result is None:
        for _ in range(trial.clips_to_send(now)):
            in_flight.append(trial.attempt)
            trial.clip_sent(0.0, now)
        if in_flight:
            seconds = per_frame + (fine or 0.0) * trial.pace.fine
            now += per_clip + seconds * frames_of_clip(trial.fps, trial.pace.clip_frames)
            trial.clip_returned(in_flight.pop(0), now)
        else:
            now += 0.1
    return trial.result, trial.attempt


@pytest.mark.parametrize(
    ("flags", "device", "short", "lengths"),
    [
        ([], "cpu", True, (*SHORT_LENGTHS, 12)),
        ([], "cpu", False, (12,)),
        ([], "cuda", True, (12,)),
        (["--clip-frames", "6"], "cpu", True, (6,)),
        (["--fps", "24"], "cpu", True, (12,)),
        (["--passthrough"], "cpu", True, (12,)),
    ],
)
def test_lengths_to_try(flags: list[str], device: str, short: bool, lengths: tuple[int, ...]) -> None:
    settings = load_settings(flags, env={})
    assert lengths_to_try(settings, device, short_window=short) == lengths


def test_a_length_for_time_to_spare_goes_with_the_short_ones() -> None:
    assert spare_length((*SHORT_LENGTHS, 12)) == SPARE_LENGTH < SHORT_LENGTHS[0]
    assert spare_length((12,)) is spare_length((4,)) is None


@pytest.mark.parametrize(
    ("per_clip", "per_frame", "frames", "attempts"),
    [
        (0.01, 0.012, 3, 2),  # 0.35 of a clip of 4 frames, then 0.37 of one of 3
        (0.02, 0.015, 4, 2),  # 0.48, then 0.52
        (0.02, 0.017, 4, 1),  # 0.53, so 3 frames are not tried
        (0.06, 0.02, 6, 2),  # 4 frames are not held
        (0.0, 0.03, 4, 1),
    ],
)
def test_only_time_to_spare_makes_clips_shorter_still(
    per_clip: float, per_frame: float, frames: int, attempts: int
) -> None:
    made, tried = choice(per_clip, per_frame, spare=3)
    assert (made.fps, made.clip_frames, made.notice, tried) == (24, frames, "", attempts)
    assert made.clip_seconds == pytest.approx(per_clip + frames * per_frame)
    assert frames != 3 or made.clip_seconds <= SPARE_SHARE * 3 / 24


def test_shorter_clips_cost_no_size() -> None:
    """Of a clip with larger pictures, 3 frames take 0.52 of its time, and with usual ones 0.46."""
    made, _ = choice(0.02, 0.0125, fine=0.0025, spare=3)
    assert (made.clip_frames, made.fine) == (4, True)
    made, _ = choice(0.01, 0.0125, fine=0.0025, spare=3)
    assert (made.clip_frames, made.fine) == (3, True)
    made, _ = choice(0.0, 0.025, fine=0.01, spare=3)  # 4 frames have usual pictures
    assert (made.clip_frames, made.fine) == (4, False)


def test_short_clips_come_before_lower_rates() -> None:
    tried = paces(FRAME_RATES, (4, 12))
    assert tried == [Pace(24, 4), Pace(24, 12), Pace(12, 12), Pace(8, 12)]
    assert [pace.lasts for pace in tried] == pytest.approx([1 / 6, 0.5, 0.5, 0.5])


def test_a_fast_machine_gets_the_shortest_clips() -> None:
    made, attempts = choice(0.02, 0.01)
    assert (made.fps, made.clip_frames, made.notice, attempts) == (24, 4, "", 1)


def test_a_cost_of_each_clip_makes_them_longer() -> None:
    """Of 0.167, 0.25 and 0.5 s, clips of 4, 6 and 12 frames take 0.14, 0.18 and 0.3 s."""
    made, attempts = choice(0.06, 0.02)
    assert (made.fps, made.clip_frames, made.notice, attempts) == (24, 6, "", 2)


def test_a_slow_machine_is_not_tried_with_every_length() -> None:
    made, attempts = choice(0.0, 0.05)  # 0.6 s of a clip of 0.5 s
    assert (made.fps, made.clip_frames) == (12, 12)
    assert attempts == 1 + 2 + 1  # 4 frames, 12 twice, 12 fps
    assert "0.60 s at 24 fps" in made.notice


def test_finer_pictures_come_after_short_clips_and_before_lower_rates() -> None:
    tried = paces(FRAME_RATES, (4, 12), (True, False))
    assert tried[:4] == [Pace(24, 4, True), Pace(24, 4), Pace(24, 12, True), Pace(24, 12)]
    assert tried[4:] == [Pace(12, 12), Pace(8, 12)]
    assert paces(FRAME_RATES, (12,), (True,)) == [Pace(fps, 12, True) for fps in FRAME_RATES]


@pytest.mark.parametrize(
    ("per_clip", "per_frame", "frames", "fine", "attempts"),
    [
        (0.02, 0.01, 4, True, 1),  # of 0.133 s that a clip may take: 0.09
        (0.02, 0.025, 4, False, 2),  # 0.15, then 0.12
        (0.06, 0.019, 12, True, 3),  # 0.166, then 0.136, then 0.38 of 0.4
        (0.08, 0.025, 12, False, 2),  # 0.21, so no more short ones, then 0.38
        (0.0, 0.06, 12, False, 4),  # too slow by far: 12 frames twice, then 12 fps
    ],
)
def test_pictures_are_as_fine_as_the_machine_holds(
    per_clip: float, per_frame: float, frames: int, fine: bool, attempts: int
) -> None:
    made, tried = choice(per_clip, per_frame, (4, 12), fine=0.0075)
    assert (made.clip_frames, made.fine, tried) == (frames, fine, attempts)
    assert made.fps == (24 if per_frame < 0.05 else 12)


@pytest.mark.parametrize(("decoding", "fine"), [(0.04, True), (0.09, False), (0.12, False)])
def test_larger_pictures_also_answer_soon(decoding: float, fine: bool) -> None:
    """Denoising and decoding overlap, each on a core. A late answer costs the size, and no short clips."""
    trial = RateTrial(MAX_SHARE, "a clip", lengths=(4, 12), heads=(True, False))
    denoised = decoded = 0.0
    for _ in range(100):
        if trial.result is not None:
            break
        attempt = trial.attempt
        denoised += 0.08
        decoded = max(denoised, decoded) + decoding
        trial.clip_sent(0.08, denoised)
        trial.clip_returned(attempt, decoded)
    assert trial.result is not None
    assert (trial.result.clip_frames, trial.result.fine) == (4, fine)


@pytest.mark.parametrize(("each", "frames"), [(0.055, 3), (0.064, 4), (0.07, 4)])
def test_a_length_for_time_to_spare_need_not_answer_sooner_than_the_one_that_is_held(
    each: float, frames: int
) -> None:
    """Denoising and decoding overlap, `each` on a core. A clip with nothing before it takes both."""
    trial = RateTrial(MAX_SHARE, "a clip", lengths=(4, 12), heads=(True, False), spare=3)
    denoised = decoded = 0.0
    for _ in range(100):
        if trial.result is not None:
            break
        attempt = trial.attempt
        denoised += each
        decoded = max(denoised, decoded) + each
        trial.clip_sent(each, denoised)
        trial.clip_returned(attempt, decoded)
    assert trial.result is not None
    assert (trial.result.clip_frames, trial.result.fine) == (frames, 2 * each <= MAX_SHARE / 6)


def test_the_next_pace_never_leaves_the_list() -> None:
    tried = paces((24,), (4, 6, 12))
    assert next_after(tried, 0, MOST_SAVED) == 1
    assert next_after(tried, 0, 9.0) == 2
    assert next_after(tried, 1, 9.0) == 2
    both = paces((24, 12), (4, 12), (True, False))
    assert next_after(both, 0, MOST_SAVED_BY_SIZE) == 1
    assert next_after(both, 0, 9.0) == next_after(both, 2, 9.0) == 3
    assert next_after(both, 3, 9.0) == 4
