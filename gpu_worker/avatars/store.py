"""Avatars by name. The reference features of each picture are made once and kept."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from gpu_worker.engine_api import ClipError
from protocol.model.assets import DEFAULT_NAME, AssetError, listed, picture_files
from protocol.model.own_avatars import own_picture
from protocol.model.pictures import read_picture

logger = logging.getLogger(__name__)

Picture = npt.NDArray[np.uint8]
R = TypeVar("R")


def fitted_picture(path: Path, width: int, height: int) -> Picture:
    """A picture cropped and resized as `read_picture` does, uint8 RGB (height, width, 3).

    Raises:
        AssetError: the picture cannot be read. The message names the file.
    """
    return np.array(read_picture(path, (width, height)), dtype=np.uint8)


class ReferenceShelf(Protocol[R]):
    """Reference features on disk, by picture."""

    def load(self, picture: Picture, /) -> R | None:
        """The features of a picture, or None."""

    def has(self, picture: Picture, /) -> bool:
        """Whether there are any."""

    def store(self, picture: Picture, made: R, /) -> bool:
        """Keeps them. False where they cannot be written."""


class AvatarStore(Generic[R]):
    """The avatars by name, with the reference features of those used lately.

    References are made in the compute thread alone. `names` and the counters may be read from any thread.

    Args:
        paths: pictures and folders of them. One that is not there or cannot be read is left out, with an
            error in the log.
        width: of the pictures, in pixels.
        height: of the pictures, in pixels.
        prepare: makes the reference features of a picture (height, width, 3), uint8 RGB.
        size_of: their size in bytes.
        budget: bytes of reference features kept. The least recently used avatars make room, but the one in
            use stays.
        kept: features that earlier starts made. None: every start makes its own.
        own_folder: holds the avatars that people bring while this runs. Their features are never kept on
            disk, and they go when the picture goes. None: there are none.

    Raises:
        AssetError: no picture can be read.
    """

    #: The avatars, in the order of their files; the first is the default.
    names: list[str]
    #: Bytes of reference features kept.
    bytes: int
    #: Requests for an avatar whose features were at hand.
    hits: int
    #: Requests for an avatar whose features had to be read from disk or made.
    misses: int

    def __init__(
        self,
        paths: Sequence[Path],
        width: int,
        height: int,
        prepare: Callable[[Picture], R],
        *,
        size_of: Callable[[R], int],
        budget: int,
        kept: ReferenceShelf[R] | None = None,
        own_folder: Path | None = None,
    ) -> None:
        self._kept = kept
        self._own_folder = own_folder
        #: Avatars whose features are on disk, as far as that is known.
        self._on_disk: set[str] = set()
        self._size = (width, height)
        self._prepare = prepare
        self._size_of = size_of
        self._budget = budget
        self._references: OrderedDict[str, R] = OrderedDict()
        #: Digests of the pictures that references were made of, without people's own.
        self._digests: dict[str, str] = {}
        self._files = self._readable(paths)
        self.names = list(self._files)
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def _readable(self, paths: Sequence[Path]) -> OrderedDict[str, Path]:
        readable, errors = OrderedDict[str, Path](), list[str]()
        files = picture_files(paths, errors)
        for error in errors:
            logger.error("left out: %s", error)
        for name, file in files.items():
            try:
                fitted_picture(file, *self._size)
                readable[name] = file
            except AssetError as fault:
                errors.append(str(fault))
                logger.error("avatar %s is left out: %s", name, fault)
        if not readable:
            raise AssetError("; ".join(errors[:3]))
        return readable

    def resolve(self, name: str) -> str:
        """The avatar's name: `name` itself, or the first one for `default`.

        Raises:
            ClipError: there is no such avatar.
        """
        if name in self._files:
            return name
        if name == DEFAULT_NAME:
            return self.names[0]
        if (own := self._own_file(name)) is not None:
            if own.is_file():
                return name
            raise ClipError(f"the avatar {name} was removed, or never was", fatal=True)
        raise ClipError(f"there is no avatar {name}; there are {listed(self.names)}", fatal=True)

    def _own_file(self, name: str) -> Path | None:
        return None if self._own_folder is None else own_picture(self._own_folder, name)

    def is_removed(self, name: str) -> bool:
        """Whether this is somebody's own avatar whose picture was removed. Any thread may ask."""
        file = None if name in self._files else self._own_file(name)
        return file is not None and not file.is_file()

    def picture_digest(self, name: str) -> str | None:
        """A digest of the picture that the avatar's features were made of.

        None before `get`, and for people's own avatars: nothing that is made of these is kept on disk.
        """
        return self._digests.get(name)

    def _drop_removed(self) -> None:
        """Forgets the features of own avatars whose pictures were removed."""
        for name in list(self._references):
            if self.is_removed(name):
                self.bytes -= self._size_of(self._references.pop(name))

    def get(self, name: str) -> R:
        """The avatar's reference features, made now if they are not at hand.

        Raises:
            ClipError: there is no such avatar, or its picture cannot be read any more.
        """
        self._drop_removed()
        name = self.resolve(name)
        if name in self._references:
            self.hits += 1
            self._references.move_to_end(name)
            return self._references[name]
        self.misses += 1
        picture = self._picture(name)
        if name not in self._files:  # somebody's own: its features go with its picture
            reference = self._prepare(picture)
        else:
            self._digests[name] = hashlib.sha256(picture.tobytes()).hexdigest()
            found = self._kept.load(picture) if self._kept is not None else None
            reference = self._make(name, picture) if found is None else found
        logger.info("reference caching: avatar %s is ready and kept for all its sessions", name)
        self._references[name] = reference
        self.bytes += self._size_of(reference)
        while self.bytes > self._budget and len(self._references) > 1:
            dropped, freed = self._references.popitem(last=False)
            self.bytes -= self._size_of(freed)
            logger.info("reference caching: avatar %s makes room, %d are kept", dropped, len(self))
        return reference

    def _picture(self, name: str) -> Picture:
        file = self._files.get(name) or self._own_file(name)
        assert file is not None  # `resolve` found it
        try:
            return fitted_picture(file, *self._size)
        except AssetError as error:
            raise ClipError(str(error), fatal=True) from error

    def _make(self, name: str, picture: Picture) -> R:
        """Makes the features of an avatar, and keeps them on disk where there is a place for them."""
        made = self._prepare(picture)
        if self._kept is not None and self._kept.store(picture, made):
            self._on_disk.add(name)
        return made

    def warm_one(self) -> bool:
        """Makes the reference features of one more avatar that fits into the budget.

        Features on disk are not read before a session asks for them.

        Returns:
            False if there is no such avatar left.
        """
        for name in [name for name in self.names if self._kept is not None and name not in self._on_disk]:
            picture = self._picture(name)
            assert self._kept is not None
            if self._kept.has(picture):
                self._on_disk.add(name)
            elif name not in self._references:
                self._make(name, picture)
                if name in self._on_disk:
                    return True
        # References of one model are of one size, so the largest tells whether another fits.
        largest = max(map(self._size_of, self._references.values()), default=0)
        if self.bytes + largest > self._budget:
            return False
        for name in self.names:
            if name not in self._references and name not in self._on_disk:
                self.get(name)
                return True
        return False

    def __len__(self) -> int:
        return len(self._references)
