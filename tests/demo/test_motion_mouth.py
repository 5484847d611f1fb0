"""Mouth tracks: targets, closures, rest, and that every phone has a viseme."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from demo.factory.motion.mouth import ANTICIPATION, TRACK_RATE, loudness_track, mouth_track
from demo.factory.motion.visemes import CHANNELS, TABLE, visemes
from demo.factory.speech import phones as sets

TIMES = np.arange(0, 2, 1 / TRACK_RATE)


def _say(*phones: str, start: float = 0.5, each: float = 0.12) -> list[tuple[float, float, str]]:
    return [(start + i * each, start + (i + 1) * each, phone) for i, phone in enumerate(phones)]


def _at(track: dict[str, NDArray[np.float32]], name: str, seconds: float) -> float:
    return float(track[name][round(seconds * TRACK_RATE)])


@pytest.mark.parametrize(
    "table", [sets.ARPABET, sets.ITALIAN, sets.CATALAN, sets.CZECH, sets.FINNISH, sets.RUSSIAN], ids=str
)
def test_every_phone_of_every_engine_table_has_a_viseme(table: dict[str, str]) -> None:
    assert all(visemes(ipa) for ipa in table.values())


@pytest.mark.parametrize(
    "phone", ["iː", "əl", "aɪə", "tʃʲ", "ɯᵝ", "ɐ̃ʊ̃", "r̝̊", "pʰ", "ph", "ts.h", 'u"', "o-", "ç", "iɛ"]
)
def test_espeak_spellings_have_visemes(phone: str) -> None:
    assert visemes(phone)


def test_unknown_symbol_is_named() -> None:
    with pytest.raises(ValueError, match="no viseme for '§'"):
        visemes("a§")


def test_shapes_of_speech() -> None:
    def middle(phone: str) -> dict[str, float]:
        track = mouth_track(_say(phone, each=0.3), TIMES)
        return {name: _at(track, name, 0.65) for name in CHANNELS}

    assert middle("a")["mouth_open"] > 0.75
    assert middle("m")["mouth_open"] == 0 and middle("m")["lips_pressed"] > 0.7
    assert middle("f")["teeth"] > 0.8
    assert middle("u")["mouth_round"] > 0.8 and middle("u")["mouth_width"] < -0.4
    assert middle("i")["mouth_width"] > 0.6
    assert middle("θ")["tongue"] > 0.6


@given(st.floats(0.01, 0.2), st.floats(0, 1 / 24), st.sampled_from("mbp"))
@settings(max_examples=40, deadline=None)
def test_a_closure_is_sampled_shut_at_24_fps_whatever_its_length(
    length: float, phase: float, phone: str
) -> None:
    spoken = [(0.3, 0.5, "a"), (0.5, 0.5 + length, phone), (0.5 + length, 0.9 + length, "a")]
    track = mouth_track(spoken, phase + np.arange(0, 1.2, 1 / 24))
    times = phase + np.arange(0, 1.2, 1 / 24)
    near = (times > 0.45) & (times < 0.55 + length)
    assert track["mouth_open"][near].min() == 0.0
    assert track["mouth_open"].max() > 0.6


def test_rest_before_after_and_in_pauses() -> None:
    spoken = [*_say("a", "m", "a"), (0.86, 1.2, "_"), (1.2, 1.4, "o")]
    track = mouth_track(spoken, TIMES)
    moving = np.any(np.stack([np.abs(track[name]) for name in CHANNELS]) > 0, axis=0)
    assert not moving[TIMES < 0.5 - ANTICIPATION].any()
    assert not moving[(TIMES > 0.86 + 0.15) & (TIMES < 1.2 - ANTICIPATION)].any()
    assert not moving[TIMES > 1.4 + 0.15].any()


def test_nothing_is_anticipated_by_more_than_60_ms() -> None:
    same = _say("a", "t", "i", "s", start=0.3)
    one = mouth_track([*same, (0.78, 0.9, "u")], TIMES)
    other = mouth_track([*same, (0.78, 0.9, "m")], TIMES)
    before = TIMES < 0.78 - ANTICIPATION - 1e-9
    for name in CHANNELS:
        np.testing.assert_allclose(one[name][before], other[name][before], atol=0.016)


@given(st.lists(st.tuples(st.sampled_from(sorted(TABLE)), st.floats(0.01, 0.4)), min_size=1, max_size=15))
@example([("_", 0.3125), ("m", 0.25)])  # the fastest change is near this one
@settings(max_examples=40, deadline=None)
def test_bounds_and_smoothness_for_any_phones(sounds: list[tuple[str, float]]) -> None:
    spoken, now = [], 0.2
    for phone, length in sounds:
        spoken.append((now, now + length, phone))
        now += length
    track = mouth_track(spoken, np.arange(0, now + 0.5, 1 / TRACK_RATE))
    for name in CHANNELS:
        assert np.isfinite(track[name]).all()
        assert track[name].max() <= 1.0 and track[name].min() >= (-1.0 if name == "mouth_width" else 0.0)
        # Lips seal within 20 ms while the mouth may begin to speak. Both eases change it by 0.517 in 8 ms.
        assert np.abs(np.diff(track[name])).max() < 0.52


def test_frame_rates_agree() -> None:
    spoken = _say("m", "a", "f", "o", "b", "i")
    full = mouth_track(spoken, TIMES)
    for fps in (8, 12, 24):
        np.testing.assert_allclose(mouth_track(spoken, TIMES[:: TRACK_RATE // fps])["mouth_open"],
                                   full["mouth_open"][:: TRACK_RATE // fps], atol=1e-6)  # fmt: skip


def test_loudness_ignores_gain_and_the_future() -> None:
    rng = np.random.default_rng(0)
    audio = rng.normal(size=32000) * np.repeat(rng.uniform(0.1, 1, 20), 1600)
    times = np.arange(0, 1.9, 1 / 24)
    level = loudness_track(audio, times)
    np.testing.assert_allclose(level, loudness_track(audio * 0.1, times), atol=1e-6)
    cut = audio.copy()
    cut[16000:] = 0
    early = times < 0.96
    np.testing.assert_allclose(level[early], loudness_track(cut, times)[early], atol=1e-6)
    assert level.min() >= -1 and level.max() <= 1
