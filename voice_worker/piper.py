"""Piper: a neural voice from a file, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from protocol.wire.messages import Samples
from protocol.wire.phrases import phrase
from voice_worker.engine_api import Cancellation, VoiceError


class PiperEngine:
    """One voice: an .onnx file with its .onnx.json beside it. It makes the sound sentence by sentence."""

    def __init__(self, voice: str | None) -> None:
        """Load the voice, which takes a second."""
        try:
            from piper import PiperVoice
        except ImportError as error:
            raise VoiceError("piper is not installed; pip install 'echomimic-live[piper]'") from error
        path = Path(voice or "")
        if not path.is_file() or not Path(f"{path}.json").is_file():
            raise VoiceError(f"--voice {path}: give the path of a voice's .onnx file, its .json beside it")
        self._voice: Any = PiperVoice.load(path)

    def speak(self, text: str, voice: str, cancelled: Cancellation) -> Iterator[tuple[int, Samples]]:
        """As `SpeechEngine.speak`. Piper has the voice of the settings alone."""
        if voice:
            raise VoiceError(phrase("say_one_voice", voice=repr(voice)))
        for chunk in self._voice.synthesize(text):
            if cancelled:
                return
            yield chunk.sample_rate, np.asarray(chunk.audio_float_array, np.float32)
