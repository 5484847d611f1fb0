"""The folder of own avatars: a picture and a note for each, private to this user.

A picture is named by a hash of its pixels and of whom it belongs to. So the same picture of two people is two
avatars, and removing one leaves the other. The note is written last: a picture without a note is no avatar.
The folder holds a marking file. A folder without that file is used only if it is empty. Only files whose
names the shelf makes are ever removed.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import re
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from PIL import Image

from gateway.avatars.reader import Pixels
from gateway.door.guard import Owner
from protocol.hop.private_file import replace_file
from protocol.wire.phrases import phrase

logger = logging.getLogger(__name__)

#: Marks the folder.
MARK = ".echomimic-avatars"
_MARK_TEXT = b"echomimic-live keeps the avatars of people here, and removes only its own files.\n"
#: Files that the shelf makes, whole or begun.
_OWN_FILE = re.compile(r"\.?own-[0-9a-f]{32}\.(?:png|json)(?:\.[A-Za-z0-9_]+)?")

#: Avatars and bytes of all owners together.
MOST_AVATARS = 1000
MOST_BYTES = 1 << 30
#: Seconds for which an avatar waits to be kept, and how many of an owner do at once.
DRAFT_SECONDS = 900
MOST_DRAFTS = 4
_MOST_NOTE_BYTES = 4096


class ShelfError(Exception):
    """An avatar cannot be kept. The text says why, and the remedy. `full`: for want of room."""

    def __init__(self, text: str, *, full: bool = False) -> None:
        super().__init__(text)
        self.full = full


@dataclass(frozen=True, slots=True)
class OwnAvatar:
    """All that is known of an avatar that somebody brought. Times are Unix seconds."""

    id: str
    #: `Owner.key` of whom it belongs to.
    owner: str
    #: As people see it.
    name: str
    made: int
    #: Bytes of the picture.
    size: int
    #: False while it waits to be kept.
    kept: bool
    #: When it goes by itself. None: it stays.
    until: int | None = None
    #: What the model kept of it, from `fit.Fit`. Empty where that was not measured.
    fit: dict[str, float] = field(default_factory=dict)


class Shelf:
    """The own avatars in a folder. To write one takes up to a tenth of a second."""

    def __init__(self, folder: Path, each: int, clock: Callable[[], float] = time.time) -> None:
        """Make the folder, or take it over, and read its notes.

        Args:
            folder: where they are kept.
            each: avatars that an owner may keep.
            clock: Unix seconds.

        Raises:
            ShelfError: the folder cannot be made, belongs to someone else, or holds other files.
        """
        self.folder = folder
        self.each = each
        self._clock = clock
        _claim(folder)
        self._avatars: dict[str, OwnAvatar] = {}
        for note in sorted(folder.glob("own-*.json")):
            avatar = _read_note(note)
            if avatar is not None and self._picture(avatar.id).is_file():
                self._avatars[avatar.id] = avatar
        self._remove_strays()
        self.remove_expired()

    def of(self, owner: Owner) -> list[OwnAvatar]:
        """Everything that belongs to an owner, the oldest first."""
        now = self._clock()
        mine = [
            each for each in self._avatars.values() if each.owner == owner.key and not _is_over(each, now)
        ]
        return sorted(mine, key=lambda each: (each.made, each.id))

    def find(self, owner: Owner, avatar_id: str) -> OwnAvatar | None:
        """The avatar, if it is this owner's."""
        avatar = self._avatars.get(avatar_id)
        mine = avatar is not None and avatar.owner == owner.key and not _is_over(avatar, self._clock())
        return avatar if mine else None

    def has(self, avatar_id: str) -> bool:
        """Whether the avatar is there, whosever it is."""
        return avatar_id in self._avatars

    def picture(self, avatar: OwnAvatar) -> Path:
        """The file of its picture, PNG."""
        return self._picture(avatar.id)

    def add(self, owner: Owner, name: str, pixels: Pixels) -> OwnAvatar:
        """Take in a picture as a draft, which `keep` keeps. One that is there already stays as it is.

        Raises:
            ShelfError: there is no room, or it cannot be written.
        """
        self.remove_expired()
        avatar_id = id_of(owner, pixels)
        if (known := self.find(owner, avatar_id)) is not None:
            return known
        drafts = [each for each in self.of(owner) if not each.kept]
        for old in drafts[: max(0, len(drafts) - MOST_DRAFTS + 1)]:
            self.remove(old)
        data = _png(pixels)
        total = sum(each.size for each in self._avatars.values())
        if len(self._avatars) >= MOST_AVATARS or total + len(data) > MOST_BYTES:
            raise ShelfError(phrase("avatars_room"), full=True)
        now = int(self._clock())
        avatar = OwnAvatar(avatar_id, owner.key, name, now, len(data), False, now + DRAFT_SECONDS)
        self._write(self._picture(avatar_id), data)
        self._write_note(avatar)
        return avatar

    def keep(self, owner: Owner, avatar: OwnAvatar) -> OwnAvatar:
        """Keep an avatar that waits for it, as long as its owner is known.

        Raises:
            ShelfError: the owner keeps as many as may be, or the note cannot be written.
        """
        if avatar.kept:
            return avatar
        if sum(each.kept for each in self.of(owner)) >= self.each:
            raise ShelfError(phrase("avatars_kept", most=self.each), full=True)
        kept = replace(avatar, kept=True, until=owner.until)
        self._write_note(kept)
        return kept

    def note_fit(self, avatar: OwnAvatar, fit: dict[str, float]) -> OwnAvatar:
        """Write down how much of it the model kept. Raises ShelfError where that cannot be written."""
        noted = replace(self._avatars.get(avatar.id, avatar), fit=fit)
        self._write_note(noted)
        return noted

    def remove(self, avatar: OwnAvatar) -> None:
        """Remove an avatar. A session that shows the avatar ends at its next clip."""
        self._avatars.pop(avatar.id, None)
        for path in (self._note(avatar.id), self._picture(avatar.id)):
            with suppress(FileNotFoundError):
                path.unlink()

    def remove_expired(self) -> None:
        """Remove avatars that nobody kept, or whose tokens' time is over."""
        now = self._clock()
        for avatar in [each for each in self._avatars.values() if _is_over(each, now)]:
            self.remove(avatar)

    def _remove_strays(self) -> None:
        """Remove files of avatars that never came to be, as after a loss of power."""
        for path in self.folder.iterdir():
            begun = path.name.startswith(".") or (
                path.suffix == ".png" and not self._note(path.stem).exists()
            )
            if _OWN_FILE.fullmatch(path.name) and begun:
                with suppress(OSError):
                    path.unlink()

    def _write_note(self, avatar: OwnAvatar) -> None:
        self._write(self._note(avatar.id), json.dumps(asdict(avatar)).encode())
        self._avatars[avatar.id] = avatar

    def _write(self, path: Path, data: bytes) -> None:
        try:
            replace_file(path, data)
        except OSError as error:
            raise ShelfError(phrase("avatars_unwritten", why=error.strerror), full=True) from error

    def _picture(self, avatar_id: str) -> Path:
        return self.folder / f"{avatar_id}.png"

    def _note(self, avatar_id: str) -> Path:
        return self.folder / f"{avatar_id}.json"


def id_of(owner: Owner, pixels: Pixels) -> str:
    """The id of an owner's picture."""
    begin = f"{owner.key}\0{pixels.width}x{pixels.height}\0".encode()
    return f"own-{hashlib.sha256(begin + pixels.data).hexdigest()[:32]}"


def _claim(folder: Path) -> None:
    """Make the folder this shelf's own. Raises ShelfError where it is not to be had."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found, mark = folder.lstat(), folder / MARK
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise ShelfError(f"{folder} is not a folder of this user; name another one")
        if not mark.exists() and any(folder.iterdir()):
            raise ShelfError(f"{folder} holds other files; name an empty or a new folder")
        folder.chmod(0o700)
        if not mark.exists():
            replace_file(mark, _MARK_TEXT)
    except OSError as error:
        raise ShelfError(f"{folder} cannot be used: {error.strerror or error}") from error


def _is_over(avatar: OwnAvatar, now: float) -> bool:
    return avatar.until is not None and now >= avatar.until


def _read_note(path: Path) -> OwnAvatar | None:
    """The note, or None for a file that no gateway of this user wrote."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            info = os.fstat(fd)
            if info.st_uid != os.getuid() or not stat.S_ISREG(info.st_mode):
                return None
            fields: Any = json.loads(file.read(_MOST_NOTE_BYTES))
        avatar = OwnAvatar(**fields)
    except (OSError, ValueError, TypeError, RecursionError) as error:
        logger.warning("the avatar's note %s cannot be read and is left out: %s", path, error)
        return None
    right = (
        avatar.id == path.stem
        and all(isinstance(text, str) for text in (avatar.owner, avatar.name))
        and all(type(number) is int for number in (avatar.made, avatar.size))
        and isinstance(avatar.kept, bool)
        and isinstance(avatar.until, int | None)
        and isinstance(avatar.fit, dict)
    )
    return avatar if right else None


def _png(pixels: Pixels) -> bytes:
    made = io.BytesIO()
    Image.frombytes("RGB", (pixels.width, pixels.height), pixels.data).save(made, "PNG", compress_level=3)
    return made.getvalue()
