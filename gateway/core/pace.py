"""How fast a client's samples go to the audio worker: in real time, with a small head start.

A live microphone never notices it. A client that pours in a whole file is slowed to real time. A client that
keeps more samples waiting than the bound gets an error.
"""

from __future__ import annotations

from collections import deque

import numpy as np

from protocol.wire.browser import BrowserError
from protocol.wire.messages import Samples

#: A client's clock may run this much fast without being slowed.
TOLERANCE = 1.02


class PacedInput:
    """Samples that wait for the audio worker, released in real time with a small head start."""

    def __init__(self, rate: int, *, ahead: float = 1.0, high: float = 2.0, bound: float = 120.0) -> None:
        """Hold nothing yet.

        Args:
            rate: samples a second.
            ahead: seconds of head start.
            high: seconds waiting at which the client should not be read any more (`full`).
            bound: seconds waiting at which the client gets an error.
        """
        self._rate = rate
        self._speed = rate * TOLERANCE
        self._ahead = ahead
        self._high = high
        self._bound = bound
        self._parts: deque[Samples] = deque()
        self._free_at = 0.0  # when, at real time, everything taken so far has been spoken
        self.waiting = 0

    @property
    def room(self) -> int:
        """Samples that may come before the client gets an error."""
        return int(self._bound * self._rate) - self.waiting

    @property
    def full(self) -> bool:
        """Whether the client should not be read any more."""
        return self.waiting > self._high * self._rate

    def put(self, samples: Samples) -> None:
        """Add samples. Raises BrowserError("too_fast") past the bound."""
        if self.waiting + len(samples) > self._bound * self._rate:
            raise BrowserError(
                "too_fast",
                f"more than {self._bound:g} s of audio waits to be spoken; send it no faster than real time",
            )
        if len(samples):
            self._parts.append(samples)
            self.waiting += len(samples)

    def put_back(self, samples: Samples) -> None:
        """Put samples before everything else that waits."""
        if len(samples):
            self._parts.appendleft(samples)
            self.waiting += len(samples)

    def take(self, now: float) -> Samples:
        """The samples that may go to the audio worker now, shape (n,)."""
        allowed = int((now + self._ahead - max(self._free_at, now)) * self._speed)
        taken: list[Samples] = []
        count = 0
        while self._parts and count < allowed:
            part = self._parts.popleft()
            if count + len(part) > allowed:
                self._parts.appendleft(part[allowed - count :])
                part = part[: allowed - count]
            taken.append(part)
            count += len(part)
        self.waiting -= count
        self._free_at = max(self._free_at, now) + count / self._speed
        return np.concatenate(taken) if taken else np.empty(0, np.float32)

    def charge(self, seconds: float, now: float) -> None:
        """Count `seconds` of padding as spoken: a clip costs its whole length, however little it holds."""
        self._free_at = max(self._free_at, now) + seconds / TOLERANCE

    def wait(self, now: float, least: float = 0.02) -> float | None:
        """Seconds until `least` seconds of audio may be taken. None when none waits."""
        if not self.waiting:
            return None
        return max(0.0, self._free_at + least - self._ahead - now)
