"""A service with OpenAI's interface: `POST /audio/speech`."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

from protocol.wire.messages import Samples
from voice_worker.engine_api import Cancellation, VoiceError
from voice_worker.wav_stream import WavReader

#: Seconds for an answer, and for each piece of the sound.
_WITHIN = 20.0
_PIECE = 1 << 13


class ServiceEngine:
    """Asks for WAV, and reads it as it comes. Bare int16 is read at 24 kHz, as OpenAI's."""

    def __init__(self, url: str, model: str, voice: str | None, key: str) -> None:
        """Connect to nothing yet.

        Args:
            url: address up to `/v1`.
            model: name of the service's model.
            voice: its usual voice.
            key: goes into a header, and into no log. Empty: the service asks for none.
        """
        parts = urlsplit(url)
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname or "", parts.port
        self._path = f"{parts.path.rstrip('/')}/audio/speech"
        self._model, self._voice = model, voice or "alloy"
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    def speak(self, text: str, voice: str, cancelled: Cancellation) -> Iterator[tuple[int, Samples]]:
        """As `SpeechEngine.speak`."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=_WITHIN)
        body = {
            "model": self._model,
            "input": text,
            "voice": voice or self._voice,
            "response_format": "wav",
        }
        reader = WavReader()
        try:
            connection.connect()
            sock = connection.sock
            # Ends a read that waits in another thread.
            cancelled.on_cancel(lambda: _shut(sock))
            connection.request("POST", self._path, json.dumps(body), self._headers)
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                raise VoiceError(f"the speech service answers {answer.status}: {_reason(answer)}")
            while data := answer.read1(_PIECE):
                samples = reader.add(data)
                if len(samples):
                    yield reader.rate, samples
        except (OSError, http.client.HTTPException) as error:
            if not cancelled:
                raise VoiceError(f"the speech service at {self._host} fails: {error}") from error
        finally:
            connection.close()


def _shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:  # it is closed already
        pass


def _reason(answer: http.client.HTTPResponse) -> str:
    """The service's words. They never hold the key: services name at most its last characters."""
    text = answer.read(2000).decode("utf-8", "replace")
    try:
        message = json.loads(text)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        message = text
    return " ".join(str(message).split())[:200]
