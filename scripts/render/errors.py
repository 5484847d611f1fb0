"""The errors of rendering, whose texts are for the person at the console."""

from __future__ import annotations


class RenderError(RuntimeError):
    """The film cannot be made. The text says why, and what to do where something can be done."""


class Stopped(Exception):
    """Rendering was told to stop before the end."""
