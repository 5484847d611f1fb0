"""Files that sessions ask for by name: avatars and poses."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

from protocol.process.settings import ROOT, Settings, SettingsError

logger = logging.getLogger(__name__)

DEFAULT = "default"
"""The name of whichever comes first."""

MAX_ASSETS = 256
"""Of one kind; the status that lists them is bounded."""


class AssetError(SettingsError):
    """A picture or pose file can't be used; the text names the file and what to do."""


def avatar_paths(settings: Settings) -> Sequence[Path]:
    """Where the avatars are: --reference-image, else the folder of bundled ones."""
    return settings.reference_image or (settings.avatar_dir,)


def pose_paths(settings: Settings) -> Sequence[Path]:
    """Where the poses are: --pose-dir, else the bundled ones."""
    return settings.pose_dir or (ROOT / "demo/bundled/poses",)


def name_of(path: Path) -> str:
    """The file's stem with what an id may not hold replaced by '_'."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)[:64] or "_"


def named_files(paths: Iterable[Path], suffixes: Sequence[str], what: str) -> OrderedDict[str, Path]:
    """Name → file of all files with one of `suffixes`, given one by one or by their folder, in that order.

    Raises AssetError for a path that does not exist or none at all. Of two files with one name the first
    is taken, and the log says so.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and p.is_file())
        elif path.is_file():
            files.append(path)
        else:
            raise AssetError(f"{path}: no such {what} or folder")
    named: OrderedDict[str, Path] = OrderedDict()
    for file in files:
        other = named.setdefault(name_of(file), file)
        if other is not file:
            logger.warning("%s is left out: %s has the same name", file, other)
    if len(named) > MAX_ASSETS:
        logger.warning("%d %ss found, only the first %d are used", len(named), what, MAX_ASSETS)
    if not named:
        where = ", ".join(str(path) for path in paths)
        raise AssetError(f"no {what} ({', '.join(suffixes)}) in {where}")
    return OrderedDict(list(named.items())[:MAX_ASSETS])


def listed(names: Sequence[str]) -> str:
    """The names, for an error's text."""
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
