"""The files of a run's log: bounded in size, age and number, and written on through a full disk."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
from dataclasses import dataclass
from pathlib import Path

#: Begins every log file. Only files that begin with it are ever removed.
MARK = b"# A log of echomimic-live. Later runs remove it when it is old (--log-keep, --log-days).\n"
#: Seconds after which a run goes on in a new file, so that the old one can be removed.
NEW_FILE_EVERY = 86400.0
#: Seconds between two tries to open a new file.
RETRY_EVERY = 1.0

_NAME = re.compile(r"run_(\d{8}-\d{6})(?:-(\d+))?\.log")


@dataclass(frozen=True, slots=True)
class LogLimits:
    """How much of the logs is kept."""

    #: Bytes of a file, after which the next one is begun.
    file_bytes: int = 20 * 10**6
    #: Files of the folder, those of other runs too.
    files: int = 40
    #: Days since a file's last line.
    days: int = 30


class LogFile:
    """Writes lines to `run_<timestamp>.log`, and goes on in a new file when one is large or a day old.

    `write_line` never raises an error. Lines that the disk does not take are counted, and the count is
    written where they are missing.
    """

    def __init__(self, folder: Path, limits: LogLimits) -> None:
        """Begin a file with mode 0600. Raises OSError when there can be none."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._limits = limits
        #: Why the last line could not be written. Empty while all goes well.
        self.trouble = ""
        #: Lines that are missing since then.
        self.missing = 0
        self._retry_at = 0.0
        self._begin(*_create(folder))

    def write_line(self, text: str) -> None:
        """Write a line, or count it."""
        line = f"{text}\n".encode("utf-8", "backslashreplace")
        now = time.monotonic()
        if self._is_full(line) or now - self._begun_at > NEW_FILE_EVERY:
            self._next_file(now)
        if self._is_full(line):
            self.missing += 1
        elif self._write(self._missing_line() + line):
            self.missing, self.trouble = 0, ""
        else:
            self.missing += 1

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def _is_full(self, line: bytes) -> bool:
        return self._size > 0 and self._size + len(line) > self._limits.file_bytes

    def _missing_line(self) -> bytes:
        """Tells how many lines are missing before the next one. Empty where none is."""
        if not self.missing:
            return b""
        stamp = time.strftime("%H:%M:%S")
        return f"{stamp}.000 [run] {self.missing} lines are missing here: {self.trouble}\n".encode()

    def _write(self, text: bytes) -> bool:
        """Write all of it or nothing."""
        if self._size == 0:
            text = MARK + text
        written = 0
        try:
            # A disk that fills up takes the part that fits. Only the next try tells the reason.
            while written < len(text):
                written += os.write(self._fd, text[written:])
        except OSError as error:
            self.trouble = error.strerror or str(error)
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            return False
        self._size += written
        return True

    def _next_file(self, now: float) -> None:
        """Go on in a new file. While there can be none, `write_line` counts the lines."""
        if now < self._retry_at:
            return
        try:
            path, fd = _create(self._folder)
        except OSError as error:
            self.trouble = error.strerror or str(error)
            self._retry_at = now + RETRY_EVERY
            return
        self.close()
        self._begin(path, fd)

    def _begin(self, path: Path, fd: int) -> None:
        self.path, self._fd = path, fd
        self._size = 0
        self._begun_at = time.monotonic()
        _remove_old(self._folder, self._limits)


def _create(folder: Path) -> tuple[Path, int]:
    """Open and lock a new log file. The files of one second are numbered in the order of their making."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = (_NAME.fullmatch(name) for name in os.listdir(folder))
    first = max((int(name[2] or 0) + 1 for name in names if name and name[1] == stamp), default=0)
    for number in range(first, first + 1000):
        path = folder / (f"run_{stamp}.log" if number == 0 else f"run_{stamp}-{number}.log")
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            continue
        # The lock tells other runs that this file is in use. Some network file systems have no locks.
        with contextlib.suppress(OSError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return path, fd
    raise FileExistsError(f"{folder}: a thousand logs of one second")


def _remove_old(folder: Path, limits: LogLimits) -> None:
    """Remove log files that nobody writes to and that are too old, or too many with the newer ones."""
    oldest = time.time() - limits.days * 86400
    with contextlib.suppress(OSError):  # a folder that cannot be read is no reason to stop
        found = []
        for path in folder.iterdir():
            if name := _NAME.fullmatch(path.name):
                # Files of one moment are told apart by their names.
                found.append((path.lstat().st_mtime, name[1], int(name[2] or 0), path))
        for place, (written, _, _, path) in enumerate(sorted(found, reverse=True)):
            if (place >= limits.files or written < oldest) and _is_over(path):
                path.unlink()


def _is_over(path: Path) -> bool:
    """Whether this is a log that the project wrote, and no run writes to it any more."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or os.read(fd, len(MARK)) != MARK:
            return False
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(fd)
