"""Speech made shorter: pauses first, the pitch stays, no clicks."""

from __future__ import annotations

import numpy as np
import pytest

from gateway.core.hasten import FADE, SHARE, cuts_of, place_in_rest, without_cuts

RATE = 16000


def tone(seconds: float, hertz: float, rate: int = RATE) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("hertz", [85.0, 137.0, 220.0, 391.0])
def test_a_tone_keeps_its_pitch_and_its_size(rate: int, hertz: float) -> None:
    whole = tone(2.0, hertz, rate)
    rest = without_cuts(whole, rate, cuts_of(whole, rate, len(whole)))
    assert len(rest) / len(whole) == pytest.approx(1 - SHARE, abs=0.08)
    spectrum = np.abs(np.fft.rfft(rest * np.hanning(len(rest))))
    assert spectrum.argmax() * rate / len(rest) == pytest.approx(hertz, rel=0.02)
    # no step between two samples is much larger than the tone's own, and no cut dips in size
    assert np.abs(np.diff(rest)).max() < 1.3 * np.abs(np.diff(whole)).max()
    window = int(0.02 * rate)
    sizes = [np.abs(rest[at : at + window]).max() for at in range(0, len(rest) - window, window)]
    assert min(sizes) > 0.2


def test_pauses_go_before_speech() -> None:
    sound = np.concatenate([tone(0.4, 200), np.zeros(8000, np.float32), tone(0.4, 200)])
    cuts = cuts_of(sound, RATE, 4000)
    assert sum(length for _, length in cuts) == 4000
    assert all(at >= 6400 and at + length <= 6400 + 8000 for at, length in cuts)
    assert cuts_of(tone(1.0, 200), RATE, 4000, speech=False) == []
    more = cuts_of(sound, RATE, 12000)
    assert sum(length for _, length in more) > 7000 + 2 * 3 * 500


def test_the_ends_stay_and_short_sound_is_left_alone() -> None:
    sound = np.random.default_rng(1).uniform(-0.3, 0.3, 8000).astype(np.float32)
    rest = without_cuts(sound, RATE, cuts_of(sound, RATE, 8000))
    assert rest[0] == sound[0] and np.array_equal(rest[-300:], sound[-300:])
    assert cuts_of(sound[:1599], RATE, 8000) == []
    assert np.array_equal(without_cuts(sound, RATE, []), sound)


def test_places_follow_the_cuts() -> None:
    sound = np.arange(8000, dtype=np.float32) / np.float32(8000)
    cuts = cuts_of(sound, RATE, 8000)
    rest = without_cuts(sound, RATE, cuts)
    fade = round(FADE * RATE)
    for place in range(0, 8000, 37):
        new = place_in_rest(cuts, place)
        if not any(at - fade <= place < at + length + 2 * fade for at, length in cuts):
            assert rest[new] == sound[place]
    assert place_in_rest(cuts, 8000) == len(rest)
