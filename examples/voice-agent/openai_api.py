"""The two calls of OpenAI's interface that the agent makes. Many servers of one's own have it too."""

from __future__ import annotations

import asyncio
import http.client
import io
import json
import os
import secrets
import wave
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import numpy as np
from listener import RATE, Samples

#: Seconds for an answer.
WITHIN = 60.0


class OpenAiApi:
    """A service at `url`, such as https://api.openai.com/v1. The key comes from OPENAI_API_KEY."""

    def __init__(self, url: str, chat_model: str, hearing_model: str) -> None:
        self._url = urlsplit(url.rstrip("/"))
        self._chat_model, self._hearing_model = chat_model, hearing_model

    async def transcribe(self, speech: Samples) -> str:
        """The words of an utterance, float32 (n,) at 16 kHz."""
        return await asyncio.to_thread(self._transcribe, speech)

    async def chat(self, messages: list[dict[str, str]]) -> AsyncIterator[str]:
        """The answer, in the pieces in which it comes. Closing the iterator ends the request."""
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | Exception | None] = asyncio.Queue()
        connection = self._connect()

        def read() -> None:
            try:
                for piece in self._chat(connection, messages):
                    loop.call_soon_threadsafe(pieces.put_nowait, piece)
                loop.call_soon_threadsafe(pieces.put_nowait, None)
            except Exception as error:  # also that of a connection that was closed from here
                loop.call_soon_threadsafe(pieces.put_nowait, error)

        reading = loop.run_in_executor(None, read)
        try:
            while (piece := await pieces.get()) is not None:
                if isinstance(piece, Exception):
                    raise piece
                yield piece
            await reading
        finally:
            if connection.sock is not None:
                connection.sock.close()

    def _transcribe(self, speech: Samples) -> str:
        border = secrets.token_hex(16)
        head = (
            f'--{border}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{self._hearing_model}\r\n'
            f'--{border}\r\nContent-Disposition: form-data; name="file"; filename="speech.wav"\r\n'
            "Content-Type: audio/wav\r\n\r\n"
        )
        body = head.encode() + _wav(speech) + f"\r\n--{border}--\r\n".encode()
        connection = self._connect()
        answer = self._ask(
            connection, "audio/transcriptions", body, f"multipart/form-data; boundary={border}"
        )
        return str(json.loads(answer.read())["text"]).strip()

    def _chat(self, connection: http.client.HTTPConnection, messages: list[dict[str, str]]) -> Iterator[str]:
        body = json.dumps({"model": self._chat_model, "messages": messages, "stream": True}).encode()
        for line in self._ask(connection, "chat/completions", body, "application/json"):
            text = line.decode().strip()
            if not text.startswith("data:") or text.endswith("[DONE]"):
                continue
            choices = json.loads(text.removeprefix("data:"))["choices"]
            if choices and (content := choices[0]["delta"].get("content")):
                yield content

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._url.scheme == "https" else http.client.HTTPConnection
        return kind(self._url.hostname or "", self._url.port, timeout=WITHIN)

    def _ask(
        self, connection: http.client.HTTPConnection, path: str, body: bytes, kind: str
    ) -> http.client.HTTPResponse:
        headers = {"Content-Type": kind}
        if key := os.environ.get("OPENAI_API_KEY"):
            headers["Authorization"] = f"Bearer {key}"
        connection.request("POST", f"{self._url.path}/{path}", body, headers)
        answer = connection.getresponse()
        if answer.status != http.client.OK:
            raise RuntimeError(f"{path}: status {answer.status}: {answer.read(300)!r}")
        return answer


def _wav(speech: Samples) -> bytes:
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(RATE)
        out.writeframes((np.clip(speech, -1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()
