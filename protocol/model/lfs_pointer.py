"""Git LFS pointers: small text files that stand where `git lfs pull` has not yet fetched the real file."""

from __future__ import annotations

from pathlib import Path

#: How a pointer begins (git-lfs/docs/spec.md).
POINTER_START = b"version https://git-lfs.github.com/spec/"


def lfs_pointer_error(path: Path) -> str | None:
    """The text of an error if the file is a Git LFS pointer, else None, also if it cannot be read."""
    try:
        with path.open("rb") as stream:
            begin = stream.read(len(POINTER_START))
    except OSError:
        return None
    if begin != POINTER_START:
        return None
    return f"{path}: is a Git LFS pointer: run git lfs pull"
