"""Where the project's code is, and where a run keeps its files when the user names no place."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

#: Folder with the packages: the checkout, or the site-packages of an installed copy.
ROOT = Path(__file__).resolve().parents[3]


def default_log_dir(env: Mapping[str, str], root: Path = ROOT) -> Path:
    """`logs/` of a checkout. An installed copy, whose folder stays as it is, gets one of the user's.

    Args:
        env: the environment, of which XDG_STATE_HOME and HOME are read.
        root: folder with the packages.
    """
    if (root / "pyproject.toml").is_file():
        return root / "logs"
    return state_dir(env) / "logs"


def state_dir(env: Mapping[str, str]) -> Path:
    """The project's folder for files that outlast a run.

    It is `$XDG_STATE_HOME/echomimic-live`, else `~/.local/state/echomimic-live`. A user whose home cannot be
    written, such as a service's, gets one among the temporary files.
    """
    candidates = [Path(env.get("XDG_STATE_HOME", "")), Path(env.get("HOME", "")) / ".local/state"]
    for place in candidates:
        # The specification of XDG says that a relative path is to be ignored.
        if place.is_absolute() and _can_make(place):
            return place / "echomimic-live"
    return Path(tempfile.gettempdir()) / f"echomimic-live-{os.getuid()}-state"


def _can_make(folder: Path) -> bool:
    """Whether the folder can be written, or made where it does not exist."""
    existing = next(place for place in (folder, *folder.parents) if place.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
