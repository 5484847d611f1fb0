"""The run's log files, and the short view of them on the console."""

from __future__ import annotations

import re
import sys
import time
from collections import deque
from pathlib import Path
from typing import TextIO

from scripts.run.console import Console
from scripts.run.logfile import LogFile, LogLimits

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

    Neither a full disk nor a console that nobody reads holds anything up: `LogFile` and `Console` count the
    lines that they had to leave out.
    """

    def __init__(self, folder: Path, limits: LogLimits | None = None, console: TextIO | None = None) -> None:
        """Begin a log file.

        Args:
            folder: of the logs, made if it is not there.
            limits: how much is kept.
            console: the stream for the short view. None is stderr.

        Raises:
            OSError: there can be no log file.
        """
        self._file = LogFile(folder, limits or LogLimits())
        self._console = Console(console or sys.stderr)
        # Of its own: a line for the program that started this run is never left out for warnings.
        self._output = Console(sys.stdout)
        self._tails: dict[str, deque[str]] = {}

    @property
    def path(self) -> Path:
        """The file that is written now."""
        return self._file.path

    def note(self, text: str) -> None:
        """Write a line of the supervisor's own."""
        self._write("run", text)
        self._console.write_line(text)

    def announce(self, text: str) -> None:
        """Write a line to stdout, for the program that started this run."""
        self._output.write_line(text)

    def stage_line(self, stage: str, text: str) -> None:
        """Write a line of a stage's output."""
        dated = _DATED.match(text)
        if dated:
            self._write_line(text)
        else:
            self._write(stage, text)
        self._tails.setdefault(stage, deque(maxlen=TAIL_LINES)).append(text)
        if _LOUD.search(text):
            self._console.write_line(text if dated else f"{stage}: {text}")

    def stage_started(self, stage: str, pid: int) -> None:
        """Note a new process of the stage, and forget the last lines of the one before."""
        self._tails.pop(stage, None)
        self._write(stage, f"started as process {pid}")

    def tail(self, stage: str) -> list[str]:
        """The last lines of a stage."""
        return list(self._tails.get(stage, ()))

    def flush(self) -> None:
        """Write the lines that the console did not take before. It waits for nobody."""
        self._console.flush()
        self._output.flush()

    def close(self) -> None:
        """Close the file, and give the console a moment for the last lines."""
        self._console.close()
        self._output.close()
        self._file.close()

    def _write(self, who: str, text: str) -> None:
        now = time.time()
        stamp = time.strftime("%H:%M:%S", time.localtime(now))
        self._write_line(f"{stamp}.{int(now * 1000) % 1000:03d} [{who}] {text}")

    def _write_line(self, line: str) -> None:
        trouble, missing = self._file.trouble, self._file.missing
        self._file.write_line(line)
        if self._file.trouble and not trouble:
            self._console.write_line(
                f"the log is not written ({self._file.trouble}); the run goes on without"
            )
        elif trouble and not self._file.trouble:
            self._console.write_line(f"the log is written again; {missing} lines are missing")
