"""Sound files of any integer width, channels and rate become mono float32 at the rate asked for."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from scripts.talk.sound import SoundError, read_sound, synthetic_voice, write_wav


def make(
    path: Path, width: int, channels: int, rate: int, values: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Write `values`, (n,) in ±1, as a WAV of `width` bytes a sample; the values that the file holds."""
    scaled = np.round(np.asarray(values) * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    if width == 1:
        data = (scaled + 128).astype(np.uint8).tobytes()
    else:
        data = b"".join(
            int(v).to_bytes(width, "little", signed=True) for v in scaled for _ in range(channels)
        )
    if width == 1:
        data = bytes(v for v in data for _ in range(channels))
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, width, rate, 0, "NONE", ""))
        file.writeframes(data)
    stored: npt.NDArray[np.float64] = scaled / 2 ** (8 * width - 1)
    return stored


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2])
def test_every_integer_width(tmp_path: Path, width: int, channels: int) -> None:
    values = np.sin(np.linspace(0, 20, 500)) * 0.9
    written = make(tmp_path / "a.wav", width, channels, 16000, values)
    read = read_sound(tmp_path / "a.wav")
    assert read.dtype == np.float32
    np.testing.assert_allclose(read, written, atol=1e-6)


def test_another_rate_is_resampled(tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 440 * np.arange(44100) / 44100).astype(np.float32)
    write_wav(tmp_path / "a.wav", tone, 44100)
    read = read_sound(tmp_path / "a.wav")
    assert len(read) == 16000
    expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(read[500:-500], expected[500:-500], atol=1e-3)


def test_errors_name_the_file(tmp_path: Path) -> None:
    with pytest.raises(SoundError, match=r"nothing\.wav.*No such file"):
        read_sound(tmp_path / "nothing.wav")
    (tmp_path / "text.wav").write_text("hello")
    with pytest.raises(SoundError, match=r"text\.wav"):
        read_sound(tmp_path / "text.wav")


def test_the_synthetic_voice_is_repeatable_and_has_pauses() -> None:
    voice = synthetic_voice(3)
    assert voice.shape == (48000,)
    assert np.array_equal(voice, synthetic_voice(3))
    loudness = np.abs(voice[: 48000 // 160 * 160].reshape(-1, 160)).max(axis=1)
    assert 0.15 < loudness.max() <= 1
    assert (loudness < 0.01).mean() > 0.05


def test_the_synthetic_voice_is_finite_at_every_vowel_s_end() -> None:
    assert all(np.isfinite(synthetic_voice(10.0, seed=seed)).all() for seed in range(10))
