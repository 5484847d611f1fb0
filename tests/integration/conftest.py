"""A whole run of all stages, started once for the tests that only talk to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from protocol.process.settings import load_settings
from scripts.run.managed import ManagedRun
from scripts.talk.sound import read_sound, synthetic_voice

#: 16 kHz, shape (n,).
Sound = npt.NDArray[np.float32]


@pytest.fixture(scope="session")
def speech() -> Sound:
    """Real speech, 16 kHz, shape (n,); a synthetic voice (and a line that says so) where there is none."""
    file = load_settings([]).shared_dir / "data/audio/news.wav"
    if file.is_file():
        return read_sound(file)
    print(f"no recording at {file}: speaking with a synthetic voice")
    return synthetic_voice(4.2)


@pytest.fixture(scope="session")
def default_run() -> Iterator[ManagedRun]:
    """The run that a newcomer starts, without a flag but the port's."""
    with ManagedRun(timeout=300) as run:
        yield run


@pytest.fixture(scope="session")
def plain_run() -> Iterator[ManagedRun]:
    """All stages with nothing computed, so that their effect on each other shows on any machine.

    A clip is flushed late, so that a machine that stops the speaking test for a moment makes no pause.
    """
    flags = "--passthrough --encoders 2 --max-sessions 16 --idle-flush 1.5"
    with ManagedRun(*flags.split(), timeout=300) as run:
        yield run


def keeper(pictures: list[bytes]) -> Callable[[int, bytes], None]:
    """For `Plan.on_frame`: puts each picture into the list."""
    return lambda _number, jpeg: pictures.append(jpeg)


def processes_with(word: str) -> list[int]:
    """Processes with `word` among the arguments of their command line."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and word.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                found.append(int(entry.name))
        except OSError:  # it ended meanwhile
            continue
    return found
