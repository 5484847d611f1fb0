"""Training speech: texts, split, closures, corpus file, augmentation; engines where they are installed."""

import ctypes
import itertools
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from demo.factory.motion.visemes import CHANNELS, visemes
from demo.factory.speech import augment, corpus, engines, make_speech, texts, words
from demo.factory.speech.closures import RELEASE, refine_closures
from demo.factory.speech.stream import ALIGNMENT, make_stream
from demo.factory.speech.thin import thinned
from demo.factory.speech.utterance import Utterance
from protocol.wire.clock import SAMPLE_RATE

RATE = SAMPLE_RATE
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")


@pytest.fixture(scope="module")
def espeak() -> engines.Espeak:
    try:
        return engines.Espeak()
    except engines.EngineError as error:
        pytest.skip(str(error))


def test_english_is_varied_and_has_no_loose_ends() -> None:
    rng = random.Random(3)
    lines = [texts.english(rng) for _ in range(400)]
    assert len(set(lines)) > 390
    assert not any("{" in line or "}" in line or "  " in line for line in lines)
    assert any("?" in line for line in lines) and any(any(c.isdigit() for c in line) for line in lines)


def test_split_holds_out_voices_of_several_engines_and_their_sentences() -> None:
    split = make_speech.load_split()
    held_out = set(split["held_out_voices"])
    assert len({voice.partition(":")[0] for voice in held_out}) >= 2
    rows = make_speech.plan(split)
    assert not held_out & {voice for voice, *_, out in rows if not out}
    assert held_out == {voice for voice, *_, out in rows if out}
    for language in ("it", "de", "cmn"):
        assert not set(split["held_out_texts"].get(language, [])) & set(texts.sentences(language))
    # The throat of a held-out espeak variant must not speak another language in training either.
    variants = {voice.partition("+")[2] for voice in held_out if "+" in voice}
    assert "steph" in variants and not any(voice.endswith("+steph") for voice, *_, out in rows if not out)


def _tone(seconds: float, level: float) -> np.ndarray:
    return (level * np.sin(2 * np.pi * 150 * np.arange(int(seconds * RATE)) / RATE)).astype(np.float32)


def test_a_p_is_moved_onto_the_quiet_before_its_burst() -> None:
    audio = np.concatenate([_tone(0.30, 0.3), _tone(0.08, 0.001), _tone(0.02, 0.2), _tone(0.3, 0.3)])
    # As espeak-ng counts: the vowel lasts through the closure.
    spoken = [(0.0, 0.38, "a"), (0.38, 0.41, "p"), (0.41, 0.7, "a")]
    vowel, stop, release, _ = refine_closures(audio, spoken)
    assert stop[2] == "p" and release[2] == RELEASE
    assert stop[0] == pytest.approx(0.30, abs=0.006) and stop[1] == pytest.approx(0.38, abs=0.006)
    assert vowel[1] == stop[0] and release[0] == stop[1]
    # As flite counts: closure and burst are one phone, begun a little before the quiet.
    spoken = [(0.0, 0.28, "a"), (0.28, 0.41, "p"), (0.41, 0.7, "a")]
    vowel, stop, release, _ = refine_closures(audio, spoken)
    assert stop[0] == pytest.approx(0.30, abs=0.006) and release[:2] == pytest.approx((0.38, 0.41), abs=0.006)
    # Without quiet nothing moves.
    loud = _tone(0.7, 0.3)
    assert refine_closures(loud, spoken) == spoken


def _small_corpus() -> corpus.Corpus:
    rng = np.random.default_rng(0)
    made = []
    for number, voice in enumerate(("a:one", "a:one", "b:two")):
        audio = (rng.normal(size=20000 + 37 * number) * 0.05).astype(np.float32)
        made.append(
            Utterance(
                audio, [(0.1, 0.4, "m"), (0.4, 0.8, "aɪ"), (0.8, 1.2, "_")], voice, "en", f"text {number}"
            )
        )
    return corpus.build(made, {"b:two"})


def test_corpus_survives_its_file_and_reports_damage(tmp_path: Path) -> None:
    before = _small_corpus()
    before.audio[:4] = (32767, -32768, 32767, -32768)  # residuals that wrap
    path = tmp_path / "speech.npz"
    corpus.save(before, path)
    after = corpus.load(path)
    for name in (
        "audio",
        "starts",
        "phone_starts",
        "phone_begin",
        "phone_end",
        "phone_id",
        "voice_id",
        "held_out",
    ):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert (
        after.texts == before.texts
        and after.voices == ["a:one", "b:two"]
        and after.phones(2) == before.phones(2)
    )
    assert after.held_out.tolist() == [False, False, True]
    np.savez(tmp_path / "other.npz", format=np.array(99))
    with pytest.raises(ValueError, match="make_speech"):
        corpus.load(tmp_path / "other.npz")


def test_a_thinner_corpus_keeps_what_is_held_out_and_nearly_its_sound(tmp_path: Path) -> None:
    pytest.importorskip("soundfile")
    before = _small_corpus()
    before.audio[:] = np.rint(3000 * np.sin(np.arange(len(before.audio)) * 0.1))
    fewer = thinned(before, 0.6 * 40037 / RATE / 60)  # of two training sentences one remains
    assert fewer.texts == ["text 1", "text 2"] and fewer.phones(1) == before.phones(2)
    corpus.save(fewer, tmp_path / "small.npz", lossy=True)
    after = corpus.load(tmp_path / "small.npz")
    assert len(after.audio) == len(fewer.audio)
    error = (after.audio.astype(float) - fewer.audio)[RATE // 2 : -RATE // 2]
    assert np.sqrt(np.mean(error**2)) < 300


def test_stream_keeps_audio_and_mouth_together() -> None:
    source = _small_corpus()
    tracks = corpus.mouth_tracks(source)
    stream = make_stream(source, tracks, held_out=False, seconds=10, seed=1)
    assert len(stream.audio) >= 10 * RATE and len(stream.audio) * 120 == len(stream.mouth) * RATE
    for number, at in stream.utterances:
        assert at % ALIGNMENT == 0 and not source.held_out[number]
        np.testing.assert_array_equal(stream.audio[at : at + 20000], source.samples(number)[:20000])
        np.testing.assert_array_equal(
            stream.mouth[at * 120 // RATE + 60], tracks.values[tracks.starts[number] + 60]
        )
    for start, end in stream.closures:
        inside = stream.mouth[int(np.ceil(start * 120)) : int(end * 120) + 1, CHANNELS.index("mouth_open")]
        assert inside.max() == 0
    assert len(make_stream(source, tracks, held_out=True).utterances) == 1
    with pytest.raises(ValueError, match="no such utterances"):
        make_stream(source, tracks, held_out=True, voices=("a:one",))


def test_augmentation_is_repeatable_keeps_time_and_leaves_level_within_bounds() -> None:
    audio = torch.zeros(8, 24000)
    audio[:, 8000:16000] = 0.05 * torch.randn(8, 8000, generator=torch.Generator().manual_seed(1))
    one = augment.augment(audio, torch.Generator().manual_seed(2))
    two = augment.augment(audio, torch.Generator().manual_seed(2))
    assert torch.equal(one, two) and one.shape == audio.shape and one.isfinite().all()
    envelope = one.unflatten(1, (-1, 800)).square().mean(2)
    assert (envelope[:, 10:20].mean(1) > 2 * envelope[:, :9].mean(1)).all()
    clean = augment.augment(audio, torch.Generator().manual_seed(3), strength=0.0)
    for changed, original in zip(clean, audio, strict=True):
        assert torch.corrcoef(torch.stack([changed, original]))[0, 1] > 0.99


def _vowel(formant: float, pitch: float = 120.0) -> torch.Tensor:
    """A second and a half of harmonics whose strength peaks at `formant` Hz: (1, 24000)."""
    seconds = torch.arange(24000) / RATE
    harmonics = torch.arange(1, 60) * pitch
    strength = torch.exp(-(((harmonics - formant) / 250) ** 2))
    return 0.02 * (strength[:, None] * torch.sin(2 * torch.pi * harmonics[:, None] * seconds)).sum(0)[None]


def test_formants_move_and_the_pitch_stays() -> None:
    audio = _vowel(1500.0).expand(16, -1).clone()
    draw = augment._Draw(audio, torch.Generator().manual_seed(5))
    same = augment._move_formants(audio, draw, chance=0.0)
    torch.testing.assert_close(same, audio, atol=1e-5, rtol=0)
    moved = augment._move_formants(audio, draw, chance=1.0)
    hertz = torch.fft.rfftfreq(24000, 1 / RATE)
    power = torch.fft.rfft(moved).abs().square()
    centres = (power * hertz).sum(1) / power.sum(1)
    assert centres.min() < 1400 and centres.max() > 1600  # both ways, by more than one harmonic's distance
    assert centres.min() > 1500 / 1.25 and centres.max() < 1500 * 1.25
    harmonic = (hertz / 120 - (hertz / 120).round()).abs() < 0.05
    assert (power[:, harmonic].sum(1) > 0.95 * power.sum(1)).all()


def test_breath_replaces_the_tones_and_keeps_loudness_and_times() -> None:
    audio = _vowel(3000.0).expand(32, -1).clone()
    audio[:, :12000] = 0
    draw = augment._Draw(audio, torch.Generator().manual_seed(6))
    torch.testing.assert_close(augment._breathe(audio, draw, chance=0.0), audio, atol=1e-6, rtol=0)
    breathy = augment._breathe(audio, draw, chance=1.0)
    hertz = torch.fft.rfftfreq(24000, 1 / RATE)
    power = torch.fft.rfft(breathy).abs().square()
    harmonic = (hertz / 120 - (hertz / 120).round()).abs() < 0.05
    tonal = power[:, harmonic].sum(1) / power.sum(1)
    assert tonal.min() < 0.5 and tonal.max() > 0.95  # a whisper, and a voice with breath above all its tones
    assert breathy[:, : 12000 - augment.BREATH_FRAME].abs().max() < 1e-6
    levels = breathy[:, 12000:].square().mean(1) / audio[:, 12000:].square().mean(1)
    assert levels.min() > 0.5 and levels.max() < 1.6


def test_words_by_chance_are_many_and_say_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed = tmp_path / "words"
    listed.write_text("Haus/AB\nNATO\nx\nfrüh\nO'Neil\nlangeswortzuviel\nBaum\n\n", encoding="utf-8")
    monkeypatch.setattr(words, "DICTIONARIES", {"de": listed, "it": tmp_path / "none"})
    words.words.cache_clear()
    try:
        assert words.words("de") == ["Haus", "früh", "Baum"]
        spoken = [words.take_words("de", random.Random(n)) for n in range(40)]
        assert len(set(spoken)) > 35 and all(4 <= len(line.split()) <= 10 for line in spoken)
        assert any("," in line for line in spoken) and all(line[0].isupper() for line in spoken)
        assert set(words.words("cmn")) > set("你好天")
        assert " " not in words.take_words("cmn", random.Random(1)).replace(", ", "")
        assert "Hyvää" in words.words("fi")
        with pytest.raises(words.DictionaryError, match="witalian"):
            words.words("it")
    finally:
        words.words.cache_clear()


def test_silence_is_quiet_and_varied() -> None:
    quiet = augment.silence(64, 8000, "cpu", torch.Generator().manual_seed(0))
    level = 20 * torch.log10(quiet.square().mean(1).sqrt() + 1e-9)
    assert level.max() < -29 and level.min() < -80 and level.std() > 10


def test_missing_engine_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)
    with pytest.raises(engines.EngineError, match="apt-get install flite"):
        engines.flite("slt", "hello")

    def no_library(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    with pytest.raises(engines.EngineError, match="apt-get install espeak-ng"):
        engines.Espeak()


@needs_flite
def test_flite_times_fit_its_sound() -> None:
    spoken = engines.flite("rms", "Mother made a map.")
    _check_times(spoken)


def test_espeak_times_fit_its_sound(espeak: engines.Espeak) -> None:
    for voice, line in (
        ("en-US+f2", "Mother made a map."),
        ("de+m2", "Oma kocht Suppe."),
        ("ru", "Мама мыла раму."),
    ):
        _check_times(espeak.speak(voice, line))
    with pytest.raises(engines.EngineError, match="no voice"):
        espeak.speak("xx-none", "hello")


def test_espeak_languages_have_visemes_for_all_they_say(espeak: engines.Espeak) -> None:
    for name, language, _, variants in make_speech._ESPEAK:
        lines = (
            texts.sentences(language)
            if language != "en"
            else [texts.english(random.Random(i)) for i in range(20)]
        )
        for line in lines:
            for *_, phone in espeak.speak(f"{name}+{variants[0]}", line).phones:
                visemes(phone)


def _check_times(spoken: Utterance) -> None:
    """Phones in order and within the audio; pauses at the ends are quiet, speech is not."""
    phones = [row for row in spoken.phones if row[2] != "_"]
    assert len(phones) > 8
    assert all(a[1] <= b[0] + 1e-6 for a, b in itertools.pairwise(phones))
    assert phones[-1][1] <= len(spoken.audio) / RATE + 0.05
    first, last = int(phones[0][0] * RATE), int(phones[-1][1] * RATE)
    speech = np.sqrt(np.mean(spoken.audio[first:last] ** 2))
    assert speech > 0.005
    ends = np.concatenate([spoken.audio[: max(1, first - 400)], spoken.audio[last + 800 :]])
    assert np.sqrt(np.mean(ends**2)) < 0.15 * speech
