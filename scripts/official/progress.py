"""How far a download is: a bar that moves on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

#: Seconds between two drawings of the bar, and between two lines where no terminal is.
BAR_EVERY = 0.25
LINE_EVERY = 10.0
#: Seconds over which the speed is averaged.
SPEED_OVER = 20.0
#: Characters of the bar.
BAR_WIDTH = 24


def size_text(count: float) -> str:
    """Bytes for people: 4.0 kB, 335 MB, 6.1 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            short = unit == "B" or (count >= 10 and unit != "GB")
            return f"{count:.0f} {unit}" if short else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


class Progress:
    """Counts the bytes of all files, and shows them from a thread of its own as a context manager.

    Args:
        total: bytes of all files.
        stream: where the bar or the lines go.
        clock: seconds that only go up.
        line_every: seconds between two lines where the stream is no terminal.
    """

    def __init__(
        self,
        total: int,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        line_every: float = LINE_EVERY,
    ) -> None:
        self._total = max(total, 1)
        self._stream = stream
        self._clock = clock
        self._terminal = stream.isatty() and os.environ.get("TERM") != "dumb"
        self._every = BAR_EVERY if self._terminal else line_every
        self._name = ""
        self._done = 0
        self._marks: deque[tuple[float, int]] = deque()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._show_now_and_then, daemon=True)
        self._shown = 0

    def __enter__(self) -> Progress:
        self._marks.append((self._clock(), self._done))
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._write(self.text(), end="\n")

    def begin(self, name: str, already: int = 0) -> None:
        """A file begins, of which `already` bytes were fetched before."""
        with self._lock:
            self._name = name
            self._done += already
            # Bytes of an earlier download tell nothing of the speed.
            self._marks = deque((when, count + already) for when, count in self._marks)

    def add(self, count: int) -> None:
        """Bytes have come. A negative number takes back bytes that have to come again."""
        with self._lock:
            self._done += count

    def text(self) -> str:
        """The state as one line."""
        now = self._clock()
        with self._lock:
            self._marks.append((now, self._done))
            while len(self._marks) > 2 and now - self._marks[0][0] > SPEED_OVER:
                self._marks.popleft()
            begin, before = self._marks[0]
            speed = max(0.0, (self._done - before) / max(now - begin, 1e-3))
            left = self._total - self._done
            share = min(1.0, max(0.0, self._done / self._total))
            name = self._name
        filled = int(BAR_WIDTH * share)
        bar = f"[{'#' * filled}{'-' * (BAR_WIDTH - filled)}] " if self._terminal else ""
        rest = f", {_duration(left / speed)} left" if speed > 0 and left > 0 else ""
        whole = size_text(self._total)
        return f"{bar}{int(100 * share)} % of {whole}, {size_text(speed)}/s{rest}" + (
            f": {name}" if name else ""
        )

    def _show_now_and_then(self) -> None:
        while not self._stop.wait(self._every):
            self._write(self.text(), end="" if self._terminal else "\n")

    def _write(self, text: str, end: str) -> None:
        if self._terminal:
            text = text[: shutil.get_terminal_size().columns - 1]
            text, self._shown = "\r" + text.ljust(self._shown), len(text)
        try:
            self._stream.write(text + end)
            self._stream.flush()
        except OSError:  # nobody reads any more; the download goes on
            pass


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
