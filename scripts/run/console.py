"""A terminal, pipe or file that lines are written to without ever waiting for its reader."""

from __future__ import annotations

import os
import select
import stat
import time
from collections import deque
from typing import TextIO

#: Bytes handed to the kernel at once. A pipe that reports room for writing takes this many.
PIECE = 512
#: Bytes that wait for a slow reader. Lines beyond them are left out and counted.
MAX_WAITING_BYTES = 64 * 1024
#: Seconds that the last lines get when the run ends.
LAST_WORDS = 0.2


class Console:
    """Writes lines to a stream's descriptor. Whatever does not fit now waits for the next `flush`.

    A reader that stands still costs lines and no time. When it reads on, it is told how many it missed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        """Write past the stream's own buffer. None, as `sys.stderr` is when closed, takes nothing."""
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._left_out = 0
        self._encoding = "utf-8"
        self._fd: int | None = None
        if stream is not None:
            self._encoding = stream.encoding or "utf-8"
            stream.flush()
            self._fd = _own_descriptor(stream.fileno())

    def write_line(self, text: str) -> None:
        """Write a line, now or later."""
        line = f"{text}\n".encode(self._encoding, "backslashreplace")
        self.flush()
        # Once a line is left out, those behind it are too, until the reader has been told how many.
        if self._left_out or self._waiting_bytes + len(line) > MAX_WAITING_BYTES:
            self._left_out += 1
        else:
            self._append(line)
            self.flush()

    def flush(self) -> None:
        """Write as much as the reader takes without waiting for it."""
        while self._fd is not None and self._waiting:
            line = self._waiting[0]
            written = _write(self._fd, line[:PIECE])
            if written is None:
                self._let_go()
                return
            if written == 0:
                return
            self._waiting_bytes -= written
            self._waiting[0] = line[written:]
            if not self._waiting[0]:
                self._waiting.popleft()
            if not self._waiting and self._left_out:
                count, self._left_out = self._left_out, 0
                self._append(f"({count} lines are left out here; the log has them)\n".encode())

    def close(self) -> None:
        """Give the last lines a moment, and let go of the descriptor."""
        deadline = time.monotonic() + LAST_WORDS
        self.flush()
        while self._fd is not None and self._waiting and time.monotonic() < deadline:
            time.sleep(0.02)
            self.flush()
        self._let_go()

    def _append(self, line: bytes) -> None:
        if self._fd is None:
            return
        self._waiting.append(line)
        self._waiting_bytes += len(line)

    def _let_go(self) -> None:
        fd, self._fd = self._fd, None
        self._waiting.clear()
        self._waiting_bytes = 0
        if fd is not None:
            os.close(fd)


def _write(fd: int, piece: bytes) -> int | None:
    """How many bytes the descriptor took. None when its reader is gone for good."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if not poll.poll(0):
        return 0
    try:
        return os.write(fd, piece)
    except BlockingIOError:
        return 0
    except OSError:
        # A file whose disk is full may take the lines later.
        return 0 if stat.S_ISREG(os.fstat(fd).st_mode) else None


def _own_descriptor(fd: int) -> int:
    """A descriptor of the same pipe or terminal that does not block.

    It is opened anew, since O_NONBLOCK on a copy would reach the shell and all who share the terminal.
    Anything else is copied: a file never blocks, and the poll before each write has to do for a socket.
    """
    kind = os.fstat(fd).st_mode
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
        try:
            return os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:  # there is no /proc, or the terminal belongs to another user
            pass
    return os.dup(fd)
