"""Clips without a voice: found by Silero's detector, and answered without Whisper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from audio_worker import voice
from audio_worker.clip_features import MOST_SHAPES, ClipFeatures
from audio_worker.sessions import DueClip
from audio_worker.voice import LOOKS, VoiceDetector, holds_no_voice
from demo.factory.evaluate.command import SAMPLE
from demo.factory.evaluate.noises import KINDS, automatic_gain, noise
from demo.factory.speech.corpus import load
from protocol.process.settings import load_settings
from protocol.wire.messages import Array16, Samples
from tests.audio_worker.test_features import due

WINDOW = 24000


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> VoiceDetector:
    pytest.importorskip("openvino")
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "home", lambda: home)
        settings = load_settings([], env={})
        first, again = VoiceDetector.load(settings), VoiceDetector.load(settings)
    assert first._graph is not None and again._graph is not None
    window = noise("fan", 1.5, -30, 0)
    assert np.array_equal(first.probabilities(window), again.probabilities(window))  # from the kept network
    return again


@pytest.fixture(scope="module")
def sentence() -> Samples:
    """A second of silence, and a sentence that begins at once."""
    corpus = load(SAMPLE / "speech.npz")
    words = (corpus.samples(0) / np.float32(32768)).astype(np.float32)
    begin = int(np.argmax(np.abs(words) > 0.02))
    return np.concatenate([np.zeros(2 * 16000, np.float32), words[begin:]])


def of(samples: Samples) -> DueClip:
    """The clip whose window these samples end with."""
    window = np.zeros(WINDOW, np.float32)
    window[-len(samples) :] = samples[-WINDOW:]
    return replace(due(0), samples=window)


def test_a_sentence_is_a_voice_and_its_beginning_too(detector: VoiceDetector, sentence: Samples) -> None:
    begin = 2 * 16000
    for end in range(begin + 8000, len(sentence), 8000):
        assert not detector.is_silent(of(sentence[:end])), end
    assert detector.is_silent(of(sentence[:begin]))
    # a clip that ends 80 ms after the first sound is denoised: the first syllable has its mouth
    for level in (0.0, 10 ** (-50 / 20)):
        air = level * np.random.default_rng(0).standard_normal(len(sentence)).astype(np.float32)
        assert not detector.is_silent(of((sentence + air)[: begin + 1280]))


def test_after_a_voice_the_mouth_shuts_in_a_denoised_clip(detector: VoiceDetector, sentence: Samples) -> None:
    spoken = np.concatenate([sentence[: 4 * 16000], np.zeros(2 * 16000, np.float32)])
    silent = [detector.is_silent(of(spoken[: 4 * 16000 + after])) for after in range(0, 32000, 800)]
    first = silent.index(True)
    assert all(silent[first:])
    # the first silent clip of half a second begins 0.15 s after the voice, or a little later
    assert 0.15 <= first * 800 / 16000 - 0.5 <= 0.35


@pytest.mark.parametrize("kind", KINDS)
def test_noises_are_no_voice(detector: VoiceDetector, kind: str) -> None:
    """Also as loud as a browser's automatic gain makes them. Music is mistaken now and then."""
    sounds = [noise(kind, 6.0, level, 1) for level in (-50, -30)]
    sounds.append(automatic_gain(sounds[0]))
    silent = [detector.is_silent(of(s[:end])) for s in sounds for end in range(WINDOW, len(s), 8000)]
    assert np.mean(silent) >= (0.8 if kind in ("music", "breath") else 1.0)


def test_looks_that_do_not_touch_the_clip_do_not_count() -> None:
    quiet = np.zeros(LOOKS, np.float32)
    seconds = 0.5 + voice.HANGOVER
    assert holds_no_voice(quiet, seconds)
    for place, height, silent in (
        (-22, 1.0, True), (-21, 0.6, False), (-20, 0.4, True), (-6, 0.4, True), (-5, 0.4, False),
    ):  # fmt: skip
        looks = quiet.copy()
        looks[place] = height
        assert holds_no_voice(looks, seconds) == silent, (place, height)


def test_without_the_package_only_digital_silence_counts(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    made = VoiceDetector.load(load_settings([], env={}))
    assert "silero-vad is not installed" in caplog.text
    assert made.is_silent(of(np.zeros(WINDOW, np.float32)))
    assert not made.is_silent(of(noise("fan", 2.0, -40, 0)))


class CountingWhisper:
    def __init__(self) -> None:
        self.asked: list[DueClip] = []

    def tokens(self, clips: Sequence[DueClip]) -> list[Array16]:
        self.asked += clips
        return [np.full((clip.clip_frames, 50, 384), clip.samples.any(), np.float16) for clip in clips]


def test_whisper_is_asked_for_voices_only() -> None:
    whisper: Any = CountingWhisper()
    features = ClipFeatures(whisper, VoiceDetector(None))
    loud, still = due(1), of(np.full(WINDOW, 1e-4, np.float32))
    made = features.tokens([loud, still, due(2), still])
    assert [silent for _, silent in made] == [False, True, False, True]
    assert [bool(tokens.any()) for tokens, _ in made] == [True, False, True, False]
    assert len(whisper.asked) == 3  # and digital silence, once
    for frames in range(1, 20):
        features.tokens([replace(still, clip_frames=frames)])
    assert len(features._of_silence) <= MOST_SHAPES
    every: Any = CountingWhisper()
    assert ClipFeatures(every, None).tokens([loud, still])[1][1] is False
    assert len(every.asked) == 2
