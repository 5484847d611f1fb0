"""Every kind of sound file that people have is read, or refused with the reason and the remedy."""

from __future__ import annotations

import os
import shlex
import struct
import sys
import tracemalloc
import warnings
import wave
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from scripts.talk.sound import SoundError, read_sound
from scripts.talk.wav import find_sound

PCM, FLOAT, A_LAW, MU_LAW, EXTENSIBLE = 1, 3, 6, 7, 0xFFFE
GUID_END = bytes.fromhex("000000001000800000aa00389b71")
Values = npt.NDArray[np.float64]


def tone(rate: int = 16000, seconds: float = 0.1, channels: int = 1) -> Values:
    """440 Hz, (frames, channels), the same in each channel."""
    wave_form = 0.5 * np.sin(2 * np.pi * 440 * np.arange(round(rate * seconds)) / rate)
    return np.repeat(wave_form[:, None], channels, axis=1)


def encoded(values: Values, codec: int, width: int, order: str = "<") -> bytes:
    """Samples as a WAV file has them."""
    flat = values.ravel()
    if codec == FLOAT:
        return flat.astype(f"{order}f{width}").tobytes()
    whole = np.round(flat * (2 ** (8 * width - 1) - 1)).astype(np.int64)
    if width == 1:
        whole = (whole + 128).astype(np.int64)
    low_first = whole.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]
    return bytes((low_first if order == "<" else low_first[:, ::-1]).tobytes())


def chunk(name: bytes, body: bytes, size: int | None = None, order: str = "<") -> bytes:
    return name + struct.pack(f"{order}I", len(body) if size is None else size) + body + bytes(len(body) % 2)


def layout(
    codec: int,
    channels: int,
    rate: int,
    width: int,
    bits: int | None = None,
    order: str = "<",
    *,
    guid: bool = False,
) -> bytes:
    """The body of a format chunk."""
    bits = 8 * width if bits is None else bits
    frame = channels * width
    tag = EXTENSIBLE if guid else codec
    body = struct.pack(f"{order}HHIIHH", tag, channels, rate, rate * frame & 0xFFFFFFFF, frame, bits)
    if guid:
        body += struct.pack(f"{order}HHIH", 22, bits, 0, codec) + GUID_END
    return body


def wav(form: bytes, data: bytes, *, before: bytes = b"", after: bytes = b"", data_size: int | None = None,
        magic: bytes = b"RIFF", riff_size: int | None = None, order: str = "<") -> bytes:  # fmt: skip
    """A WAV file of these chunks."""
    body = (
        b"WAVE" + before + chunk(b"fmt ", form, order=order) + chunk(b"data", data, data_size, order) + after
    )
    return magic + struct.pack(f"{order}I", len(body) if riff_size is None else riff_size) + body


def save(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def level(samples: npt.NDArray[np.float32]) -> float:
    return float(np.sqrt(np.mean(np.square(samples))))


@pytest.mark.parametrize("rate", [4000, 8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize(("codec", "width"), [(PCM, 1), (PCM, 2), (PCM, 3), (PCM, 4), (FLOAT, 4), (FLOAT, 8)])
def test_wav_of_every_width_rate_and_number_of_channels(
    tmp_path: Path, codec: int, width: int, rate: int
) -> None:
    for channels in range(1, 9):
        data = encoded(tone(rate, channels=channels), codec, width)
        for extensible in (False, True):
            content = wav(layout(codec, channels, rate, width, guid=extensible), data)
            read = read_sound(save(tmp_path / "a.wav", content))
            assert read.dtype == np.float32
            assert abs(len(read) - 1600) <= 1
            middle = slice(400, 1200)  # resampling fades in and out
            close = 0.02 if width == 1 else 3e-3
            np.testing.assert_allclose(read[middle], tone()[middle, 0], atol=close)


@pytest.mark.parametrize(("codec", "name"), [(A_LAW, "alaw"), (MU_LAW, "ulaw")])
def test_the_laws_of_telephones(tmp_path: Path, codec: int, name: str) -> None:
    """Each of the 256 bytes, as the standard library (to Python 3.12) and G.711's own definition have it."""
    content = wav(layout(codec, 1, 16000, 1), bytes(range(256)))
    read = read_sound(save(tmp_path / "a.wav", content))
    ends = {A_LAW: (-5504, 848), MU_LAW: (-32124, 0)}[codec]  # of the bytes 0 and 255
    assert (read[0] * 32768, read[255] * 32768) == ends
    if sys.version_info < (3, 13):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            import audioop

        known = getattr(audioop, f"{name}2lin")(bytes(range(256)), 2)
        assert np.array_equal(np.round(read * 32768), np.frombuffer(known, "<i2"))


NOISE = tone()
DATA = encoded(NOISE, PCM, 2)
FORM = layout(PCM, 1, 16000, 2)
ODD = {
    "junk before": wav(FORM, DATA, before=chunk(b"JUNK", bytes(28)) + chunk(b"bext", b"x" * 603)),
    "junk after": wav(FORM, DATA, after=chunk(b"LIST", b"INFOISFT\x0e\0\0\0Lavf59.27.100\0")),
    "a chunk of odd size": wav(FORM, DATA, before=chunk(b"odd ", b"abc")),
    "an odd chunk without its filling": wav(FORM, DATA, before=chunk(b"odd ", b"abc")[:-1]),
    "an empty chunk": wav(FORM, DATA, before=chunk(b"fact", b"")),
    "format of 18 bytes": wav(FORM + b"\0\0", DATA),
    "format of 40 bytes that is plain": wav(FORM + struct.pack("<H", 22) + bytes(22), DATA),
    "streamed: sizes unknown": wav(FORM, DATA, data_size=0xFFFFFFFF, riff_size=0xFFFFFFFF),
    "streamed by sox": wav(FORM, DATA, data_size=0x7FFFFFFF - 36, riff_size=0x7FFFFFFF),
    "a killed recorder: sizes zero": wav(FORM, DATA, data_size=0, riff_size=0),
    "a size beyond the end": wav(FORM, DATA, data_size=len(DATA) + 999),
    "RIFF's size wrong": wav(FORM, DATA, riff_size=3),
    "half a sample at the end": wav(FORM, DATA + b"\x01"),
    "RF64": wav(FORM, DATA, magic=b"RF64", riff_size=0xFFFFFFFF, data_size=0xFFFFFFFF,
                before=chunk(b"ds64", struct.pack("<QQQI", 9999, len(DATA), len(NOISE), 0))),
    "RF64 with sound after which chunks come": wav(FORM, DATA, magic=b"BW64", data_size=0xFFFFFFFF,
                before=chunk(b"ds64", struct.pack("<QQQI", 9999, len(DATA), len(NOISE), 0)),
                after=chunk(b"axml", b"x" * 1000)),
    "big endian": wav(layout(PCM, 1, 16000, 2, order=">"), encoded(NOISE, PCM, 2, ">"),
                      magic=b"RIFX", order=">"),
    "24 bits in 32": wav(layout(PCM, 1, 16000, 4, bits=24, guid=True),
                         b"".join(b"\0" + encoded(NOISE[i : i + 1], PCM, 3) for i in range(len(NOISE)))),
    "20 bits in 24": wav(layout(PCM, 1, 16000, 3, bits=20, guid=True), encoded(NOISE, PCM, 3)),
    "no frame size": wav(struct.pack("<HHIIHH", PCM, 1, 16000, 0, 0, 16), DATA),
}  # fmt: skip


@pytest.mark.parametrize("kind", ODD)
def test_odd_but_whole_files(tmp_path: Path, kind: str) -> None:
    read = read_sound(save(tmp_path / "a.wav", ODD[kind]))
    np.testing.assert_allclose(read, NOISE[:, 0], atol=1e-4)


def test_the_standard_library_reads_the_same(tmp_path: Path) -> None:
    path = save(tmp_path / "a.wav", wav(FORM, DATA))
    with wave.open(str(path)) as file:
        data = file.readframes(file.getnframes())
    assert np.array_equal(read_sound(path), np.frombuffer(data, "<i2").astype(np.float32) / 32768)


def test_samples_that_are_no_numbers_are_silence_and_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = tone(channels=2)
    values[10:13, 0] = [np.nan, np.inf, -np.inf]
    values[13] = 1e300  # more than float32 holds
    path = save(tmp_path / "a.wav", wav(layout(FLOAT, 2, 16000, 8), encoded(values, FLOAT, 8)))
    read = read_sound(path)
    assert np.isfinite(read).all()
    np.testing.assert_allclose(read[10:13], values[10:13, 1] / 2, atol=1e-6)
    assert read[13] == 0
    assert f"{path}: 5 samples are no numbers" in caplog.text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (wav(FORM, b""), "has no sound in it"),
        (wav(FORM, b"\x01"), "has no sound in it"),
        (wav(FORM, DATA)[:30], "is WAV, but its format is cut off"),
        (wav(FORM, DATA)[:36], "is WAV, but it has no sound in it"),
        (wav(FORM, DATA)[:12], "is WAV, but it has no format in it"),
        (
            b"RIFF" + struct.pack("<I", 99) + b"WAVE" + chunk(b"data", DATA),
            "its sound comes before its format",
        ),
        (wav(layout(PCM, 0, 16000, 2), DATA), "it has no channels"),
        (wav(layout(2, 1, 16000, 1, bits=4), DATA), "its samples are of format 2 with 4 bits"),
        (wav(layout(0x55, 1, 16000, 1, bits=0), DATA), "its samples are of format 85 with 0 bits"),
        (wav(layout(PCM, 1, 16000, 8), DATA), "its samples are of format 1 with 64 bits"),
        (wav(layout(PCM, 1, 0, 2), DATA), "its rate is 0 Hz; 1000 to 768000 Hz are read"),
        (wav(layout(PCM, 1, 4_000_000_000, 2), DATA), "its rate is 4000000000 Hz"),
        (wav(layout(FLOAT, 1, 16000, 4), encoded(tone() * 32768, FLOAT, 4)), "has samples of size 1.64e+04"),
        (wav(layout(PCM, 1, 1000, 1), bytes(4 * 3600 * 1000 + 1)), "is longer than 4 hours; cut it"),
        (b"RIFF\0\0\0\0WAVE" + chunk(b"JUNK", b"") * 20_000, "it has no format in it"),
        (b"<!DOCTYPE html><html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "run git lfs pull"),
        (b"hello", "is of no kind of sound file that is known here; convert it: ffmpeg -i "),
        (b"\0\0\0\x1cftypM4A \0\0\0\0", "is M4A, which is not read here; convert it: ffmpeg -i "),
        (b"\0\0\0\x1cftypisom\0\0\0\0", "is MP4, which is not read here; convert it: "),
        (b"\x1aE\xdf\xa3\x01\0\0\0", "is WebM or Matroska, which is not read here; convert it: "),
        (b"\xff\xf1\x50\x80\0\0", "is AAC, which is not read here; convert it: "),
        (b"#!AMR\n", "is AMR, which is not read here; convert it: "),
        (b"0&\xb2u\x8ef\xcf\x11", "is WMA, which is not read here; convert it: "),
    ],
)
@pytest.mark.parametrize("has_soundfile", [True, False])
def test_a_fault_has_its_reason_and_remedy(
    tmp_path: Path, content: bytes, words: str, has_soundfile: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if has_soundfile:
        pytest.importorskip("soundfile")
        if "its sound comes before" in words:
            pytest.skip("soundfile reads it")
    else:
        monkeypatch.setitem(sys.modules, "soundfile", None)
    path = save(tmp_path / "my voice.wav", content)
    with pytest.raises(SoundError) as caught:
        read_sound(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    if not (has_soundfile and "WAV, but" in words):
        assert words in text
    if "ffmpeg" in text:
        command = shlex.split(text[text.index("ffmpeg") :])
        assert command[2:] == [str(path), "-ac", "1", "-ar", "16000", "my voice-16k.wav"]


@pytest.mark.parametrize(
    ("form", "name"), [("FLAC", "FLAC"), ("OGG", "Ogg"), ("MP3", "MP3"), ("AIFF", "AIFF")]
)
def test_without_soundfile_the_package_is_named(
    tmp_path: Path, form: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = {"FLAC": b"fLaC", "OGG": b"OggS", "MP3": b"ID3\x04", "AIFF": b"FORM\0\0\0\0AIFF"}[form]
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(SoundError, match=f"is {name}; pip install soundfile, or convert it: ffmpeg -i"):
        read_sound(save(tmp_path / "a.bin", begin))


@pytest.mark.parametrize(
    ("form", "subtype"),
    [
        *(("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS")),
        *(("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("AIFF", "FLOAT")),
        *(("AU", "ULAW"), ("CAF", "PCM_24"), ("W64", "PCM_16")),
        *(("WAV", "IMA_ADPCM"), ("WAV", "MS_ADPCM"), ("WAV", "GSM610")),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("rate", "channels"), [(16000, 1), (48000, 2), (8000, 1)])
def test_other_kinds_by_soundfile(tmp_path: Path, form: str, subtype: str, rate: int, channels: int) -> None:
    soundfile = pytest.importorskip("soundfile")
    values = tone(rate, 0.5, channels)
    if subtype == "GSM610" and channels > 1:
        pytest.skip("GSM has one channel")
    path = tmp_path / "a.bin"
    soundfile.write(path, values, rate, format=form, subtype=subtype)
    read = read_sound(path)
    assert len(read) == pytest.approx(8000, abs=1000)  # MP3, ADPCM and GSM fill their last block up
    assert level(read[2000:6000]) == pytest.approx(0.5 / np.sqrt(2), rel=0.1)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 3])
    try:
        assert len(read_sound(path)) < 8000
    except SoundError as error:
        assert str(path) in str(error)


def test_a_long_file_takes_the_memory_of_its_result_alone(tmp_path: Path) -> None:
    """Three minutes of eight channels at 48 kHz: 276 MB as float32, and 12 MB at 16 kHz mono."""
    path = tmp_path / "long.wav"
    rate, channels, seconds = 48000, 8, 180
    with path.open("wb") as file:
        file.write(wav(layout(PCM, channels, rate, 1), b"", data_size=0xFFFFFFFF))
        file.truncate(44 + rate * channels * seconds)
    tracemalloc.start()
    read = read_sound(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(read) == 16000 * seconds
    assert peak < 60e6


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "folder.wav").mkdir()
    for name, words in (("pipe", "is not a file"), ("folder", "is a folder"), ("none", "No such file")):
        with pytest.raises(SoundError, match=words):
            read_sound(tmp_path / f"{name}.wav")


def test_the_place_of_the_sound_is_found(tmp_path: Path) -> None:
    with save(tmp_path / "a.wav", ODD["junk before"]).open("rb") as stream:
        sound = find_sound(stream)
    assert (sound.channels, sound.rate, sound.width, sound.frames) == (1, 16000, 2, 1600)
