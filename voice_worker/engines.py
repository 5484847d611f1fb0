"""Makes the engine that the settings ask for."""

from __future__ import annotations

import os

from protocol.process.settings import Settings
from protocol.process.voices import choose_voice
from voice_worker.engine_api import SpeechEngine, VoiceError

#: The variable with the key of the service at `--voice-url`.
KEY_VARIABLE = "OPENAI_API_KEY"


def make_engine(settings: Settings) -> tuple[str, SpeechEngine]:
    """The engine's name, and the engine.

    Raises:
        VoiceError: there is none, or it cannot work.
    """
    choice = choose_voice(settings)
    # Here, so that only the engine that serves is imported.
    if choice.engine == "openai":
        from voice_worker.openai_service import ServiceEngine

        key = os.environ.get(KEY_VARIABLE, "")
        return "openai", ServiceEngine(settings.voice_url or "", settings.voice_model, settings.voice, key)
    if choice.engine == "piper":
        from voice_worker.piper import PiperEngine

        return "piper", PiperEngine(settings.voice)
    if choice.engine:
        from voice_worker.programs import EspeakEngine, FliteEngine

        kind = EspeakEngine if choice.engine == "espeak-ng" else FliteEngine
        return choice.engine, kind(settings.voice)
    raise VoiceError(choice.why)
