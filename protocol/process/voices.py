"""Which speech engine a run has for texts, and the name of the file by which its worker is asked for."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from protocol.process.settings import Settings
from protocol.wire.phrases import phrase

#: Empty file in the run folder: the gateway makes it at the first text, and the launcher starts the worker.
VOICE_WANTED_FILE = "voice_worker.wanted"

#: Engine → the command that installs it.
_INSTALL = {
    "espeak-ng": "apt-get install espeak-ng",
    "flite": "apt-get install flite",
    "piper": "pip install 'echomimic-live[piper]'",
}


@dataclass(frozen=True, slots=True)
class VoiceChoice:
    """The engine that makes speech of texts. `engine` is empty where there is none, and `why` says why."""

    engine: str
    why: str = ""


def choose_voice(
    settings: Settings,
    which: Callable[[str], str | None] = shutil.which,
    has_module: Callable[[str], bool] = lambda name: importlib.util.find_spec(name) is not None,
) -> VoiceChoice:
    """The engine of a run: the one that `--voice-engine` names, or the first that there is.

    Args:
        settings: of the run.
        which: finds a program.
        has_module: finds a Python package.
    """
    asked = settings.voice_engine
    if asked == "none":
        return VoiceChoice("", phrase("say_off"))
    if asked != "auto":
        why = _missing(asked, settings, which, has_module)
        return VoiceChoice("" if why else asked, why)
    order = ["espeak-ng", "flite"]
    if settings.voice_url is not None:
        order.insert(0, "openai")
    if settings.voice is not None and settings.voice.endswith(".onnx"):
        order.insert(0, "piper")
    for engine in order:
        if not _missing(engine, settings, which, has_module):
            return VoiceChoice(engine)
    return VoiceChoice("", phrase("say_no_engine"))


def _missing(
    engine: str,
    settings: Settings,
    which: Callable[[str], str | None],
    has_module: Callable[[str], bool],
) -> str:
    """Why an engine cannot serve. Empty if it can."""
    if engine == "openai":
        return "" if settings.voice_url else "--voice-engine openai: give its address by --voice-url"
    found = has_module("piper") if engine == "piper" else which(engine) is not None
    if not found:
        return f"--voice-engine {engine}: it is not installed here; {_INSTALL[engine]}"
    if engine == "piper" and (settings.voice is None or not Path(settings.voice).is_file()):
        return f"--voice-engine piper: --voice {settings.voice or ''}: give the path of a voice's .onnx file"
    return ""
