"""Tells the program that started this process that it works, and then that it lives, by bytes in a pipe.

The program that starts a stage may give it the pipe's writing end, and the number of that descriptor in the
variable `READY_FD`. Without the variable nothing is written. The first byte says that the process is ready.
Later bytes are signs of life. A supervisor expects them from a process that has sent one.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass

#: The variable with the number of the descriptor.
READY_FD = "READY_FD"
READY = b"\n"
ALIVE = b"."
#: Seconds between two signs of life.
ALIVE_EVERY = 0.5


@dataclass
class _Pipe:
    """The writing end. `number` is None where nobody listens."""

    number: int | None = None
    told_at: float = float("-inf")

    def write(self, byte: bytes) -> None:
        if self.number is None:
            return
        try:
            os.write(self.number, byte)
        except BlockingIOError:  # the pipe is full, so the starter has signs enough to read
            pass
        except OSError:  # the starter closed its end, or the variable was meant for another process
            self.number = None


_pipe = _Pipe()


def tell_ready() -> None:
    """Say that the process works. Further calls do nothing."""
    number = os.environ.pop(READY_FD, "")
    if not number.isdecimal():
        return
    _pipe.number = int(number)
    with suppress(OSError):
        os.set_blocking(_pipe.number, False)
        os.set_inheritable(_pipe.number, False)
    _pipe.write(READY)


def tell_alive() -> None:
    """Say that the loop that does the work goes round. Call it in each round: it limits its own rate."""
    now = time.monotonic()
    if now - _pipe.told_at >= ALIVE_EVERY:
        _pipe.told_at = now
        _pipe.write(ALIVE)
