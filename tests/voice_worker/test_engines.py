"""Speech engines: the programs of this machine, a service's stand-in, and the bytes in between."""

from __future__ import annotations

import io
import json
import threading
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np
import pytest

from protocol.process.settings import Settings, SettingsError
from protocol.process.voices import choose_voice
from tests.helpers.http_service import serving
from tests.helpers.voice import needs_espeak, needs_flite
from voice_worker.engine_api import Cancellation, SpeechEngine, VoiceError
from voice_worker.openai_service import ServiceEngine
from voice_worker.programs import EspeakEngine, FliteEngine
from voice_worker.wav_stream import WavReader


def spoken(engine: SpeechEngine, text: str, voice: str = "") -> tuple[int, np.ndarray]:
    pieces = list(engine.speak(text, voice, Cancellation()))
    return pieces[0][0], np.concatenate([samples for _, samples in pieces])


@needs_espeak
def test_espeak_speaks_many_languages() -> None:
    engine = EspeakEngine(None)
    rate, english = spoken(engine, "Hello, how are you?")
    assert rate == 22050 and 0.8 < len(english) / rate < 4 and np.abs(english).max() > 0.1
    assert len(spoken(engine, "Guten Tag, wie geht es?", "de")[1]) > rate // 2
    with pytest.raises(VoiceError, match="espeak-ng"):
        spoken(engine, "Hello.", "klingon9")


@needs_flite
def test_flite_speaks_with_its_own_voices_and_no_file() -> None:
    engine = FliteEngine(None)
    rate, sound = spoken(engine, "Hello, how are you?", "rms")
    assert rate == 16000 and 0.8 < len(sound) / rate < 4
    with pytest.raises(VoiceError, match="it has kal"):
        spoken(engine, "Hello.", "other")


@needs_espeak
def test_a_text_is_never_an_option() -> None:
    rate, sound = spoken(EspeakEngine(None), "--help -w /tmp/x")
    assert len(sound) > rate // 2


@needs_espeak
def test_a_cancelled_sentence_ends_at_once() -> None:
    cancelled = Cancellation()
    pieces = EspeakEngine(None).speak("word " * 4000, "", cancelled)
    next(pieces)
    cancelled.cancel()
    began = time.monotonic()
    rest = list(pieces)
    assert time.monotonic() - began < 2 and len(rest) < 100


def wav(rate: int, channels: int = 1, seconds: float = 0.5) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate)
        out.writeframes(np.full(round(rate * seconds) * channels, 8192, "<i2").tobytes())
    return file.getvalue()


@pytest.mark.parametrize("piece", [1, 7, 1000, 100_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_a_wav_file_is_read_in_pieces_of_any_size(piece: int, channels: int) -> None:
    data, reader = wav(22050, channels), WavReader()
    samples = np.concatenate([reader.add(data[at : at + piece]) for at in range(0, len(data), piece)])
    assert reader.rate == 22050 and len(samples) == 11025 and np.all(samples == 0.25)


def test_bare_samples_are_read_at_24_khz() -> None:
    reader = WavReader()
    assert len(reader.add(bytes(960))) == 480 and reader.rate == 24000


def test_sound_of_another_kind_is_refused() -> None:
    data = bytearray(wav(22050))
    data[34] = 8  # bits
    with pytest.raises(VoiceError, match="8 bits"):
        WavReader().add(bytes(data))


@contextmanager
def service(answer: bytes, status: int = 200, stall: float = 0.0) -> Iterator[tuple[str, list[Any]]]:
    """A speech service that answers everything with these bytes, after half of them with a pause."""
    asked: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.append((self.path, self.headers.get("Authorization"), body))
            self.send_response(status)
            self.end_headers()
            try:
                self.wfile.write(answer[: len(answer) // 2])
                self.wfile.flush()
                time.sleep(stall)
                self.wfile.write(answer[len(answer) // 2 :])
            except OSError:
                pass

        def log_message(self, format: str, *args: object) -> None:
            pass

    with serving(Handler) as address:
        yield f"{address}/v1", asked


def test_a_service_is_asked_as_openai_is() -> None:
    with service(wav(24000)) as (url, asked):
        rate, sound = spoken(ServiceEngine(url, "tts-1", None, "secret"), "Hello.", "nova")
    assert (rate, len(sound)) == (24000, 12000)
    path, key, body = asked[0]
    assert path == "/v1/audio/speech" and key == "Bearer secret"
    assert body == {"model": "tts-1", "input": "Hello.", "voice": "nova", "response_format": "wav"}


def test_a_service_that_refuses_says_why() -> None:
    refusal = json.dumps({"error": {"message": "no such model"}}).encode()
    with service(refusal, 404) as (url, _), pytest.raises(VoiceError, match="404: no such model"):
        spoken(ServiceEngine(url, "m", None, ""), "Hello.")
    with pytest.raises(VoiceError, match="fails"):
        spoken(ServiceEngine("http://127.0.0.1:9/v1", "m", None, ""), "Hello.")


def test_a_service_that_stalls_is_left_at_once_when_nobody_wants_it() -> None:
    with service(wav(24000, seconds=2), stall=30) as (url, _):
        cancelled = Cancellation()
        pieces = ServiceEngine(url, "m", None, "").speak("Hello.", "", cancelled)
        next(pieces)
        threading.Timer(0.2, cancelled.cancel).start()
        began = time.monotonic()
        list(pieces)
        assert time.monotonic() - began < 5


def test_the_engine_is_chosen_by_the_settings_and_by_what_there_is() -> None:
    def chosen(*programs: str, **settings: Any) -> str:
        choice = choose_voice(
            Settings(**settings),
            lambda name: name if name in programs else None,
            lambda _: "piper" in programs,
        )
        return choice.engine or choice.why

    assert chosen("flite") == "flite"
    assert chosen("flite", "espeak-ng") == "espeak-ng"
    assert chosen("espeak-ng", voice_url="http://127.0.0.1:1/v1") == "openai"
    assert "apt-get install espeak-ng" in chosen()
    assert "apt-get install flite" in chosen("espeak-ng", voice_engine="flite")
    assert "switched off" in chosen("espeak-ng", voice_engine="none")
    assert "echomimic-live[piper]" in chosen(voice_engine="piper", voice="x.onnx")
    assert ".onnx" in chosen("piper", voice_engine="piper")
    assert "--voice-url" in chosen(voice_engine="openai")
    with pytest.raises(SettingsError, match="without a key"):
        Settings(voice_url="http://me:key@host/v1")
