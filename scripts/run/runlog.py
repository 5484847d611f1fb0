"""The run's log file, and the short view of it on the console."""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from pathlib import Path
from typing import TextIO

# Lines of a stage's output that are shown on the console too. The file has all of them.
_LOUD = re.compile(r"\b(WARNING|ERROR|CRITICAL)\b|^Traceback |^\w*(Error|Exception|Interrupt)\b")
# A line of the stages' own logging carries its time and stage already.
_DATED = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} [A-Z]+ ")
TAIL_LINES = 12


class RunLog:
    """Writes `logs/run_<timestamp>.log`: each line with its time and the stage it came from.

    `note` writes the supervisor's own lines to the file and the console. `stage_line` writes a stage's output
    to the file, and to the console where it is a warning or worse. The last lines of each stage are kept, so
    that a failure can be explained.
    """

    def __init__(self, folder: Path, console: TextIO | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.console = sys.stderr if console is None else console
        self.path, self._file = _create(folder)
        self._tails: dict[str, deque[str]] = {}

    def note(self, text: str) -> None:
        """Write a line of the supervisor's own."""
        self._write("run", text)
        self._show(text)

    def stage_line(self, stage: str, text: str) -> None:
        """Write a line of a stage's output."""
        dated = _DATED.match(text)
        if dated:
            self._file.write(f"{text}\n")
        else:
            self._write(stage, text)
        self._tails.setdefault(stage, deque(maxlen=TAIL_LINES)).append(text)
        if _LOUD.search(text):
            self._show(text if dated else f"{stage}: {text}")

    def stage_started(self, stage: str, pid: int) -> None:
        """Note a new process of the stage, and forget the last lines of the one before."""
        self._tails.pop(stage, None)
        self._write(stage, f"started as process {pid}")

    def tail(self, stage: str) -> list[str]:
        """The last lines of a stage."""
        return list(self._tails.get(stage, ()))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, who: str, text: str) -> None:
        now = time.time()
        stamp = time.strftime("%H:%M:%S", time.localtime(now))
        self._file.write(f"{stamp}.{int(now * 1000) % 1000:03d} [{who}] {text}\n")

    def _show(self, text: str) -> None:
        try:
            print(text, file=self.console, flush=True)
        except (OSError, ValueError):  # the terminal is gone: the file still has it
            pass


def _create(folder: Path) -> tuple[Path, TextIO]:
    """Open a new log file. Two runs of one second get different names."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for number in range(1000):
        path = folder / (f"run_{stamp}.log" if number == 0 else f"run_{stamp}-{number}.log")
        try:
            return path, path.open("x", encoding="utf-8", errors="backslashreplace", buffering=1)
        except FileExistsError:
            continue
    raise FileExistsError(f"{folder}: a thousand logs of one second")
