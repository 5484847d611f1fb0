"""Finds packages that an interrupted installation left in pieces, so that they are installed anew.

pip and uv believe that a package is installed when its `.dist-info` folder is there. A kill leaves that
folder beside half of the files, or without its list of them.
"""

from __future__ import annotations

import csv
import shutil
from pathlib import Path


def forget_broken(site_packages: Path, since: float) -> list[str]:
    """Remove the `.dist-info` of each package that lacks a file, and the folders that pip had set aside.

    The other files of such a package stay: they are overwritten when it is installed anew.

    Args:
        site_packages: of the environment.
        since: when the interrupted installation began, in seconds since 1970. Older entries are not its own.

    Returns:
        The names of the packages.
    """
    broken = []
    for info in sorted(site_packages.glob("[!~]*.dist-info")):
        if _changed(info) >= since and not is_whole(info):
            broken.append(info.name.partition("-")[0])
            shutil.rmtree(info, ignore_errors=True)
    # pip renames a package that it is about to replace, so that its first letter is a tilde
    for left in site_packages.glob("~*"):
        if left.is_dir() and not left.is_symlink() and _changed(left) >= since:
            shutil.rmtree(left, ignore_errors=True)
    return broken


def _changed(path: Path) -> float:
    try:
        return path.lstat().st_ctime
    except OSError:
        return 0.0


def is_whole(info: Path) -> bool:
    """Whether all files that a package's list names are there, with their sizes. Bytecode may be missing."""
    try:
        with open(info / "RECORD", encoding="utf-8", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
        if not (info / "METADATA").is_file() or not rows:
            return False
        for name, *rest in rows:
            place = info.parent / name
            if name.endswith(".pyc") or place == info / "RECORD":
                continue
            size = rest[1] if len(rest) > 1 else ""
            found = place.stat().st_size
            if size.isdecimal() and found != int(size):
                return False
    except (OSError, ValueError, csv.Error):
        return False
    return True
