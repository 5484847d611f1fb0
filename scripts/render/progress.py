"""How far a film is: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

#: Seconds between two changes of the bar, and between two lines.
BAR_EVERY = 0.1
LINE_EVERY = 5.0
BAR_WIDTH = 30


class RenderProgress:
    """Counts pictures and shows them.

    Args:
        total: pictures of the film.
        fps: of the film.
        stream: for the bar. None is stderr.
        clock: seconds that never run backwards.
    """

    def __init__(
        self,
        total: int,
        fps: int,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.done = 0
        self._total = total
        self._fps = fps
        self._stream = stream or sys.stderr
        self._clock = clock
        self._is_bar = self._stream.isatty()
        self._began = clock()
        self._shown_at = self._began

    def tell_waiting(self, stages: str) -> None:
        """These stages are not warm yet."""
        self._stream.write(f"waiting for {stages}\n")
        self._stream.flush()

    def begin(self) -> None:
        """The first clip is on its way."""
        self._began = self._shown_at = self._clock()

    def step(self) -> None:
        """One more picture is done."""
        self.done += 1
        now = self._clock()
        every = BAR_EVERY if self._is_bar else LINE_EVERY
        if now - self._shown_at >= every or self.done == self._total:
            self._shown_at = now
            self._show(now)

    def clear(self) -> None:
        """Leave the line of an unfinished bar."""
        if self._is_bar and 0 < self.done < self._total:
            self._stream.write("\n")

    def text(self, now: float) -> str:
        """Share, pictures, speed and the time that is left."""
        spent = max(now - self._began, 1e-3)
        speed = self.done / self._fps / spent
        left = (self._total - self.done) * spent / max(1, self.done)
        share = f"{100 * self.done // self._total:3d} %  {self.done} of {self._total} pictures"
        return f"{share}, {speed:.1f} times real time, {left:.0f} s left"

    def _show(self, now: float) -> None:
        if not self._is_bar:
            self._stream.write(f"{self.text(now)}\n")
        else:
            full = BAR_WIDTH * self.done // self._total
            bar = "█" * full + "░" * (BAR_WIDTH - full)
            self._stream.write(f"\r{bar} {self.text(now)}\x1b[K")
            if self.done == self._total:
                self._stream.write("\n")
        self._stream.flush()
