"""Functions that tests call in a process of their own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

from protocol.process.settings import Settings


def describe(settings: Settings, word: str) -> dict[str, Any]:
    """Some settings, the word, and this process. It prints, as libraries do."""
    print("a library says hello")
    return {"threads": settings.threads, "dtype": settings.dtype, "word": word, "pid": os.getpid()}


def fail(settings: Settings) -> dict[str, Any]:
    """Fails as a library does."""
    raise OSError("libgomp.so.1: cannot open shared object file\nand more")


def be_killed(settings: Settings) -> dict[str, Any]:
    """Ends as the kernel ends a process that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def answer_nothing(settings: Settings) -> Any:
    """Returns a list, which is no mapping."""
    return [1]


def sleep(settings: Settings, note: str) -> dict[str, Any]:
    """Writes this process's id into the file `note`, and sleeps for a long time."""
    Path(note + ".new").write_text(str(os.getpid()), encoding="ascii")
    os.replace(note + ".new", note)
    time.sleep(600)
    return {}
