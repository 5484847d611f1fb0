"""Facts that one start finds out and the next one uses, such as which library computes faster.

A record belongs to the contents of files: those of the model and of the code that reads it. So a record of
another model or of an older version is never found.
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from protocol.model.hardware.cpu_features import cpu_features
from protocol.model.kept_folder import write_whole
from protocol.process.logs import first_line

logger = logging.getLogger(__name__)

#: Packages whose version decides on a network's files and speed.
PACKAGES = ("torch", "openvino", "diffusers", "transformers", "numpy")

#: Bytes of all files of a record together above which nothing is recorded: to read them would cost more than
#: the record saves. Every model that OpenVINO serves unasked is smaller.
MOST_BYTES = 600_000_000

#: Most records kept in a folder. The oldest are removed.
MOST_RECORDS = 64

Record = Mapping[str, Any]


def content_key(files: Iterable[Path], sources: Iterable[Path], *facts: object) -> str | None:
    """A digest of the contents of files, of code, of this machine's processor and of `facts`.

    Args:
        files: of the model, or folders of them.
        sources: modules and packages of the code that reads them.
        facts: whatever else decides, with a `repr` that says all of it.

    Returns:
        24 hexadecimal digits, or None where the files cannot be read or are too large.
    """
    versions = [_version(name) for name in PACKAGES]
    machine = (platform.machine(), platform.python_version(), sorted(cpu_features()))
    digest = hashlib.sha256(repr((versions, machine, facts)).encode())
    try:
        listed = [*_files_of(files, "*"), *_files_of(sources, "*.py")]
        if sum(path.stat().st_size for path in listed) > MOST_BYTES:
            return None
        for path in listed:
            content = path.read_bytes()
            digest.update(f"{path.name} {len(content)} ".encode())
            digest.update(content)
    except OSError:
        return None
    return digest.hexdigest()[:24]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _files_of(paths: Iterable[Path], pattern: str) -> list[Path]:
    """The files themselves, and in place of each folder its files."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(file for file in path.rglob(pattern) if file.is_file())
        else:
            found.append(path)
    return found


def read_record(folder: Path, name: str) -> Record | None:
    """The record of this name, or None where there is none that can be read."""
    try:
        record = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def write_record(folder: Path, name: str, record: Record) -> None:
    """Keeps a record for the next start. A failure is logged."""
    try:
        write_whole(folder / f"{name}.json", json.dumps(dict(record)).encode())
        by_age = sorted(folder.glob("*-????????????????????????.json"), key=lambda path: path.stat().st_mtime)
        for old in by_age[:-MOST_RECORDS]:
            old.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("%s is found out anew by the next start: %s", name, first_line(error))
