"""Tells a file that is cut off, or that holds something else under its name, from a whole one.

Only the beginning and the end of a file are read, so that gigabytes of weights are checked at once.
"""

from __future__ import annotations

import json
import struct
import zipfile
from pathlib import Path

from protocol.model.lfs_pointer import lfs_pointer_error

#: Bytes at a file's beginning that tell a web page.
_BEGINNING = 512
#: Largest header of a `.safetensors` file, as its library has it.
_MAX_HEADER = 100_000_000
_LENGTH = struct.Struct("<Q")  # of the header, at the file's beginning
_ZIP_START = b"PK\x03\x04"
_AGAIN = "remove it and download it again"


def stand_in_error(path: Path) -> str | None:
    """The text of an error if a file of any kind is empty, a Git LFS pointer or a web page, else None.

    A download that needs a login or passes a captive portal ends as a web page under the file's name.
    """
    try:
        with path.open("rb") as stream:
            begin = stream.read(_BEGINNING)
    except OSError:
        return None
    if not begin:
        return f"{path}: is empty: {_AGAIN}"
    if _is_web_page(begin):
        return (
            f"{path}: is a web page and not the file: {_AGAIN}; a link to the file itself has /resolve/ in it"
        )
    return lfs_pointer_error(path)


def damage_error(path: Path, suffix: str | None = None) -> str | None:
    """The text of an error if a file of weights is cut off, or a stand-in of it, else None.

    `.safetensors` state their length. The zip archives that torch and numpy write have a list at their end.
    Other files pass.

    Args:
        path: the file.
        suffix: of the name that the file is to have. None: it has that name.
    """
    stand_in = stand_in_error(path)
    if stand_in is not None:
        return stand_in
    try:
        if (suffix or path.suffix) == ".safetensors":
            return _cut_safetensors(path)
        with path.open("rb") as stream:
            is_zip = stream.read(len(_ZIP_START)) == _ZIP_START
        if is_zip and not _has_list(path):
            return f"{path}: is cut off: it has {path.stat().st_size:,} bytes and no end; {_AGAIN}"
    except OSError:
        return None
    return None


def _is_web_page(begin: bytes) -> bool:
    text = begin.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    return text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head"))


def _has_list(path: Path) -> bool:
    """Whether a zip archive has its list of files at its end."""
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # bytes at the end that look like a list of several disks
        return False


def _cut_safetensors(path: Path) -> str | None:
    """Compare a file's length with the one that its header states. A header of no sense passes."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        length = stream.read(_LENGTH.size)
        if len(length) < _LENGTH.size:
            return f"{path}: is cut off: it has {size} bytes; {_AGAIN}"
        count = _LENGTH.unpack(length)[0]
        if count > _MAX_HEADER:
            return None
        header = stream.read(count)
    whole = _LENGTH.size + count
    if len(header) == count:
        try:
            entries = json.loads(header)
            whole += max(e["data_offsets"][1] for key, e in entries.items() if key != "__metadata__")
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            return None
    if size < whole:
        return f"{path}: is cut off: it has {size:,} bytes of {whole:,}; {_AGAIN}"
    return None
