"""The mark on folders that this project makes for a run.

A run may be pointed at any folder (``--run-dir``). Only a folder with the mark is ever cleared or removed, or
has its permissions changed, so that nobody's own files are lost to a wrong path.
"""

from __future__ import annotations

import os
import stat
from enum import Enum
from pathlib import Path

#: Name of the file that marks a folder.
MARK = ".echomimic-run"
_MAX_MARK_BYTES = 200


class Origin(Enum):
    """Who made a marked folder. The value is the mark's text."""

    MADE = b"echomimic-live made this folder for a run and removes it when the run ends.\n"
    TAKEN = b"echomimic-live uses this folder, which it did not make, and leaves it empty.\n"


def make_folder(path: Path) -> bool:
    """Make `path` for this user alone (mode 0700) and mark it. Missing parents are made too.

    Returns:
        True if the folder was made, False if something of that name is there already, which stays as it is.

    Raises:
        OSError: the folder or its mark cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        return False
    folder = open_folder(path)
    try:
        write_mark(folder, Origin.MADE)
    finally:
        os.close(folder)
    return True


def open_folder(path: Path) -> int:
    """A descriptor of the folder at `path`.

    Raises:
        OSError: it is no folder. A symbolic link is none.
    """
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def read_mark(folder: int) -> Origin | None:
    """The origin that the folder's mark tells, or None without a mark that this user's runs wrote."""
    try:  # without NONBLOCK a pipe of that name would be waited for
        fd = os.open(MARK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return None
    try:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode) or info.st_uid != os.getuid():
            return None
        text = os.read(fd, _MAX_MARK_BYTES)
    finally:
        os.close(fd)
    return next((origin for origin in Origin if origin.value == text), None)


def write_mark(folder: int, origin: Origin) -> None:
    """Mark the folder (a descriptor). A mark that another process wrote meanwhile stays."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(MARK, flags, 0o600, dir_fd=folder)
    except FileExistsError:
        return
    try:
        os.write(fd, origin.value)
    finally:
        os.close(fd)
