"""A voice worker beside a gateway of the tests, as the launcher starts it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from protocol.process.settings import ROOT, Settings, flags_of

needs_espeak = pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
needs_flite = pytest.mark.skipif(shutil.which("flite") is None, reason="flite is not installed")


def start_voice_worker(settings: Settings) -> subprocess.Popen[bytes]:
    """A voice worker of the run with these settings."""
    command = [sys.executable, "-m", "voice_worker", *flags_of(settings)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)


@contextmanager
def voice_worker(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A voice worker for the time of the `with` block, whose end is checked."""
    process = start_voice_worker(settings)
    try:
        yield process
    finally:
        process.terminate()
        told = process.communicate(timeout=10)[1].decode()
        assert process.returncode in (0, -9), told
        assert "Traceback" not in told, told
