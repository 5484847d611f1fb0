"""Gives a process a home and a name where its user has none, as in a container with `--user 12345`.

Libraries ask for both while they are imported: OpenVINO's raises RuntimeError without a home, and torch's
compiler KeyError without a name.
"""

from __future__ import annotations

import os
import pwd
import tempfile
from collections.abc import MutableMapping
from pathlib import Path

from protocol.process.settings.places import make_private_folder, state_dir

#: Variables that stand for the user's name, in the order in which Python's getpass looks at them.
_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def complete_user(environment: MutableMapping[str, str] = os.environ) -> None:
    """Set HOME and LOGNAME where the user has no home or no name. Call it before any library is imported.

    The home of a user without one is made among the project's own folders, for this user alone. A home that
    cannot be written stays, since it may hold files to read, and compilers are sent elsewhere.
    """
    home = environment.get("HOME", "")
    if not Path(home).is_absolute() or not Path(home).is_dir() or (home == "/" and not _writable("/")):
        given = _entry("pw_dir")
        home = given if given not in ("", "/") and Path(given).is_dir() else ""
    environment["HOME"] = home or str(_own_home(environment))
    if not _writable(environment["HOME"]):
        environment.setdefault("TRITON_HOME", str(_own_home(environment)))
    if not any(environment.get(name) for name in _NAMES) and not _entry("pw_name"):
        environment["LOGNAME"] = f"user{os.getuid()}"


def _writable(folder: str) -> bool:
    return os.access(folder, os.W_OK | os.X_OK)


def _entry(field: str) -> str:
    """A field of the user's entry in the system's list, or "" without one."""
    try:
        return str(getattr(pwd.getpwuid(os.getuid()), field))
    except KeyError:
        return ""


def _own_home(environment: MutableMapping[str, str]) -> Path:
    place = state_dir(environment) / "home"
    try:
        make_private_folder(place.parent)
        make_private_folder(place)
    except OSError:  # somebody else's folder is there, or the disk is full
        place = Path(tempfile.mkdtemp(prefix="echomimic-live-home-"))
    return place
