"""The interface of a speech engine."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Protocol

from protocol.wire.messages import Samples


class VoiceError(RuntimeError):
    """A sentence cannot be spoken. The text says why, for the person who sent it."""


class Cancellation:
    """Tells an engine that nobody wants its sentence any more. Any thread may use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cancelled = False
        self._stop: Callable[[], None] | None = None

    def __bool__(self) -> bool:
        return self._cancelled

    def cancel(self) -> None:
        """Stop the engine now."""
        with self._lock:
            self._cancelled = True
            stop, self._stop = self._stop, None
        if stop is not None:
            stop()

    def on_cancel(self, stop: Callable[[], None]) -> None:
        """Call `stop` when the sentence is cancelled, or now if it was."""
        with self._lock:
            if not self._cancelled:
                self._stop = stop
                return
        stop()


class SpeechEngine(Protocol):
    """Makes speech of one sentence. Several threads may call it at once."""

    def speak(self, text: str, voice: str, cancelled: Cancellation) -> Iterator[tuple[int, Samples]]:
        """The sound in pieces, as they are made.

        Args:
            text: one sentence of plain text.
            voice: the engine's name of a voice. Empty: the one of the settings.
            cancelled: ends the sentence early. The pieces then simply end.

        Yields:
            The rate in Hz, the same for all pieces, and samples, float32 (n,), of -1..1.

        Raises:
            VoiceError: it cannot be spoken.
        """
        ...
