"""One file from the Hub: fetched into a `.part` file, resumed after a break, checked, moved to its place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path

from protocol.model.file_damage import damage_error
from scripts.official.errors import OfficialError, disk_sentence
from scripts.official.hub import Hub, RemoteFile

#: Characters in the name of a `.part` file that stand for the sum: one of another version is not resumed.
MARK_CHARS = 12
_PIECE = 2**20


def part_file(target: Path, file: RemoteFile) -> Path:
    """The file that holds what has come so far."""
    mark = hashlib.sha256(file.sum.encode()).hexdigest()[:MARK_CHARS]
    return target.with_name(f"{target.name}.{mark}.part")


def already_here(target: Path, file: RemoteFile) -> int:
    """Bytes that an earlier download left."""
    try:
        return min(part_file(target, file).stat().st_size, file.size)
    except OSError:
        return 0


def fetch(hub: Hub, file: RemoteFile, target: Path, count: Callable[[int], None]) -> None:
    """Fetch a file into its place. What has come stays after any failure.

    Args:
        hub: the source.
        file: from `Hub.look_up`.
        target: the place. A file there is replaced when the new one is whole.
        count: is told of bytes that have come, or with a negative number of bytes that come again.

    Raises:
        OfficialError: the Hub, the disk or the content fails. The text says what to do.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part = part_file(target, file)
        with _locked(part) as stream:
            resumed = _fill(hub, file, stream, count)
            if resumed and not _is_right(file, part):  # the beginning may have been damaged since
                stream.seek(0)
                _Counted(stream, count).truncate()
                _fill(hub, file, stream, count)
            _check(hub, file, part, stream)
            part.replace(target)
        for old in target.parent.glob(f"{target.name}.{'?' * MARK_CHARS}.part"):
            old.unlink(missing_ok=True)  # of another version
    except OSError as error:
        raise OfficialError(disk_sentence(error, target.parent)) from error


class _Counted:
    """The open `.part` file. Tells how many bytes were written, and taken back."""

    def __init__(self, stream: FileIO, count: Callable[[int], None]) -> None:
        self._stream, self._count = stream, count
        self.tell, self.seek = stream.tell, stream.seek

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:  # a disk that is nearly full takes a part
            written = self._stream.write(view)
            self._count(written)
            view = view[written:]
        return len(data)

    def truncate(self) -> int:
        """Cut the file off at the place where the stream stands."""
        end, here = os.fstat(self._stream.fileno()).st_size, self._stream.tell()
        self._stream.truncate(here)
        self._count(here - end)
        return here


@contextlib.contextmanager
def _locked(part: Path) -> Iterator[FileIO]:
    """The `.part` file, open for this process alone."""
    fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    with FileIO(fd, "r+") as stream:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OfficialError(
                f"{part.name[:-5]} is being fetched by another run; wait for that one"
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # a disk without locks
                raise
        yield stream


def _fill(hub: Hub, file: RemoteFile, stream: FileIO, count: Callable[[int], None]) -> bool:
    """Append until the `.part` file is as large as the Hub's. Returns whether it held a beginning already."""
    start = stream.seek(0, os.SEEK_END)
    if start > file.size:
        stream.seek(0)
        stream.truncate()
        start = 0
    hub.read(file, _Counted(stream, count))
    os.fsync(stream.fileno())
    return start > 0


def _check(hub: Hub, file: RemoteFile, part: Path, stream: FileIO) -> None:
    """Compare the content with the Hub's sum. Throw another one away. Raises OfficialError then."""
    if _is_right(file, part):
        return
    stream.truncate(0)
    raise OfficialError(
        f"{file.part.name} of {file.part.repository} came with another content than {hub.endpoint} states,"
        " and was removed; start again, and if it comes so once more, name a mirror with HF_ENDPOINT"
    )


def _is_right(file: RemoteFile, part: Path) -> bool:
    """Whether the content has the Hub's sum, or, where a mirror states none, looks whole."""
    if not (file.is_sha256 or file.is_git_sha1):
        return damage_error(part, Path(file.part.name).suffix) is None
    # Git names a file by the SHA-1 of a header and the content. It guards against damage here, not malice.
    digest = (
        hashlib.sha256() if file.is_sha256 else hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    )
    with part.open("rb") as stream:
        while piece := stream.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest() == file.sum
