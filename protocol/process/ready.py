"""Tells the program that started this process that the process works now, by a byte in a pipe of its own.

Whoever starts a stage may hand it the pipe's writing end and name it in `READY_FD`. Without the variable
nobody asked. A supervisor judges by it whether a process that ended had ever come up, however long it lived.
"""

from __future__ import annotations

import os
from contextlib import suppress

#: The variable with the number of the descriptor.
READY_FD = "READY_FD"


def tell_ready() -> None:
    """Write the byte and close the pipe. Further calls do nothing."""
    number = os.environ.pop(READY_FD, "")
    if not number.isdecimal():
        return
    with suppress(OSError):  # the starter closed its end, or the variable is of another process
        os.write(int(number), b"\n")
        os.close(int(number))
