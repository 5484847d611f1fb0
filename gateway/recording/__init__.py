"""Recordings of sessions: the sound and the pictures that were sent, in a file, without coding them again."""

import importlib.util

from protocol.process.settings import Settings


def recording_problem(settings: Settings) -> str:
    """Why there are no recordings here. Empty where there are."""
    if not settings.record:
        return "this server does not record"
    if importlib.util.find_spec("av") is None:
        return "this server cannot record: it lacks PyAV (the extra `video`)"
    return ""
