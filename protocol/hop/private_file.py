"""Small files that only this user can read, such as the secrets that the processes of a run share."""

from __future__ import annotations

import os
import secrets
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path


class PrivateFileError(RuntimeError):
    """The file is not one that only this user can read."""


def read_or_make(path: Path, make: Callable[[], bytes], most_bytes: int) -> bytes:
    """The file's content, at most `most_bytes` + 1 of it. The first process that asks makes it.

    Raises:
        PrivateFileError: others can read it, or it is no file of this user's.
        OSError: it cannot be read or made.
    """
    if not path.exists():
        _write(path, make())
    return _read(path, most_bytes)


def replace_file(path: Path, content: bytes) -> None:
    """Put `content` in the place of a file, mode 0600, whole or not at all, and safe from a loss of power.

    Raises:
        OSError: it cannot be written. Nothing is left.
    """
    fd, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # its mode is 0600
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _write(path: Path, content: bytes) -> None:
    """A file that another process wrote first stays, and nobody ever sees half of one."""
    new = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
        os.link(new, path)
    except FileExistsError:
        pass
    finally:
        new.unlink()


def _read(path: Path, most_bytes: int) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if info.st_uid != os.getuid() or not stat.S_ISREG(info.st_mode) or info.st_mode & 0o077:
            raise PrivateFileError(
                f"{path} is not a file that only this user can read; remove it and start the run again"
            )
        return file.read(most_bytes + 1)
