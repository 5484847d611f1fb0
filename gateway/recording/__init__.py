"""Recordings of sessions: the sound and the pictures that were sent, in a file, without coding them again."""

import importlib.util

from protocol.process.settings import Settings
from protocol.wire.phrases import phrase


def recording_problem(settings: Settings) -> str:
    """Why there are no recordings here. Empty where there are."""
    if not settings.record:
        return phrase("recording_off")
    if importlib.util.find_spec("av") is None:
        return phrase("recording_lacks")
    return ""
