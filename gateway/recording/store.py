"""The folder of the recordings: names that nobody guesses, facts beside each file, and the rule of deletion.

A file is only ever read or deleted where its facts lie beside it, as this class wrote them. So a wrong
`--record-dir` costs nobody a file.
"""

from __future__ import annotations

import json
import logging
import os
import re
import secrets
import stat
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from protocol.hop.private_file import replace_file
from protocol.process.settings.places import make_private_folder

logger = logging.getLogger(__name__)

#: First field of the facts.
MADE_BY = "echomimic-live"
#: Endings that recordings have.
KINDS = {".mp4": "video/mp4", ".webm": "video/webm", ".mkv": "video/x-matroska"}
_NAME = re.compile(r"([A-Za-z0-9_-]{22})(\.mp4|\.webm|\.mkv)")
_MAX_FACTS_BYTES = 4096
HOUR = 3600.0


@dataclass(frozen=True)
class Recording:
    """The facts about a file."""

    #: Of the file.
    name: str
    session: str
    #: Id of the program's token whose sessions it belongs to. Empty where no token is asked for.
    owner: str
    #: Unix time.
    began: float
    #: Whether the file is complete. An incomplete file can be played up to its last whole part.
    finished: bool = False
    seconds: float = 0.0
    bytes: int = 0
    #: Why it ended.
    reason: str = ""

    @property
    def kind(self) -> str:
        """Its media type."""
        return KINDS[Path(self.name).suffix]


class RecordingStore:
    """Every recording in one folder.

    Args:
        folder: is made when the first recording begins, for this user alone.
        keep: finished recordings that stay. The oldest ones beyond that are deleted.
        hours: after which a recording is deleted.
        wall_clock: Unix time.
    """

    def __init__(self, folder: Path, keep: int, hours: float, wall_clock: Callable[[], float]) -> None:
        self._folder = folder
        self._keep = keep
        self._hours = hours
        self._wall_clock = wall_clock
        self._known = self._read_all()

    def new_stem(self) -> Path:
        """A path for a new file, without its ending.

        Raises:
            OSError: the folder cannot be used.
        """
        make_private_folder(self._folder)
        return self._folder / secrets.token_urlsafe(16)

    def put(self, recording: Recording) -> None:
        """Write the facts about a file. Raises OSError."""
        content = json.dumps({"made_by": MADE_BY, **asdict(recording)}).encode()
        replace_file(self._facts_of(recording.name), content)
        self._known[recording.name] = recording

    def find(self, name: str, owner: str) -> Recording | None:
        """The recording of that name, if it is this owner's."""
        recording = self._known.get(name)
        return recording if recording is not None and recording.owner == owner else None

    def of_session(self, session: str, owner: str) -> list[Recording]:
        """The recordings of a session, the oldest first."""
        mine = [one for one in self._known.values() if one.session == session and one.owner == owner]
        return sorted(mine, key=lambda one: one.began)

    def path(self, recording: Recording) -> Path:
        """Its file."""
        return self._folder / recording.name

    def remove(self, recording: Recording) -> None:
        """Delete a recording and its facts."""
        self._known.pop(recording.name, None)
        for path in (self.path(recording), self._facts_of(recording.name)):
            try:
                if _is_own_file(path):
                    path.unlink()
            except OSError as error:
                logger.warning("%s cannot be deleted: %s", path.name, error.strerror)

    def sweep(self, running: set[str]) -> None:
        """Delete the recordings that are too old or too many. `running`: names of those that are written."""
        now = self._wall_clock()
        done = sorted((one for one in self._known.values() if one.name not in running), key=lambda r: r.began)
        beyond = len(done) - self._keep
        for number, recording in enumerate(done):
            if number < beyond or now - recording.began > self._hours * HOUR:
                logger.info("the recording %s is deleted by rule", recording.name[:6] + "…")
                self.remove(recording)

    def _facts_of(self, name: str) -> Path:
        return self._folder / f"{name}.json"

    def _read_all(self) -> dict[str, Recording]:
        known = {}
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else []:
            recording = _read_facts(path)
            if recording is not None and _is_own_file(self._folder / recording.name):
                known[recording.name] = recording
        return known


def _is_own_file(path: Path) -> bool:
    """Whether it is a regular file of this user's."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _read_facts(path: Path) -> Recording | None:
    """The facts in a file, or None where this class did not write them."""
    if not _is_own_file(path) or path.stat().st_size > _MAX_FACTS_BYTES:
        return None
    try:
        found: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or found.pop("made_by", None) != MADE_BY:
        return None
    plain = asdict(Recording("", "", "", 0.0))
    if found.keys() != plain.keys() or any(type(found[name]) is not type(plain[name]) for name in plain):
        return None
    recording = Recording(**found)
    return recording if _NAME.fullmatch(recording.name) and path.name == f"{recording.name}.json" else None
