"""Poses by name. The pose encoder makes the features of each of their frames once, and they are kept."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpu_worker.engine_api import ClipError
from protocol.model.assets import DEFAULT_NAME, AssetError, listed, pose_files
from protocol.wire.clock import SAMPLE_RATE

logger = logging.getLogger(__name__)

#: Part of the machine's memory that pose features may take.
MOST_SHARE = 1 / 8


def host_budget(most: int) -> int:
    """Bytes of features that the host's memory may hold: `most`, or less on a small machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min(most, int(MOST_SHARE * memory))


class FeatureArray(Protocol):
    """An array of numpy, or a tensor of torch. The first dimension counts frames where there are several."""

    @property
    def nbytes(self) -> int: ...

    def __len__(self) -> int: ...

    def __getitem__(self, places: Any, /) -> Any: ...


F = TypeVar("F", bound=FeatureArray)


class FeatureMemory(Protocol[F]):
    """How the library that denoises keeps features in memory."""

    def keep(self, feature: F, /) -> F:
        """A copy (c, h, w) that shares its memory with no other feature."""

    def join(self, features: Sequence[F], /) -> F:
        """Features (n, c, h, w) where the denoiser reads them, of such (c, h, w)."""

    def to_array(self, features: F, /) -> NDArray[Any]:
        """An array of numpy that `from_array` gives back as it was. It may share the memory."""

    def from_array(self, features: NDArray[Any], /) -> F:
        """The features of an array from `to_array`. They share its memory."""


class ArrayMemory:
    """Features as arrays of numpy, for the denoiser by OpenVINO."""

    def keep(self, feature: NDArray[Any]) -> NDArray[Any]:
        return np.array(feature)

    def join(self, features: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.stack(features)

    def to_array(self, features: NDArray[Any]) -> NDArray[Any]:
        return features

    def from_array(self, features: NDArray[Any]) -> NDArray[Any]:
        return features


class Track(Protocol):
    """A pose sequence of `len` frames at `fps`. `draw` gives maps (n, 3, h, w) in 0..1."""

    @property
    def fps(self) -> int: ...

    def __len__(self) -> int: ...

    def draw(self, indices: Sequence[int]) -> NDArray[np.float32]: ...


class PoseShelf(Protocol):
    """Features of whole pose files on disk."""

    def load(self, file: Path, /) -> NDArray[Any] | None:
        """The features (frames, c, h, w) of a file, or None."""

    def store(self, file: Path, features: NDArray[Any], /) -> bool:
        """Keeps them. False where they cannot be written."""


class PoseStore(Generic[F]):
    """The poses by name, with the features of frames that were encoded before.

    Thread-safe: the prefetch thread gathers while the compute thread warms.

    Args:
        paths: `.npz` pose files and folders of them. One that is not there or damaged is left
            out, with an error in the log.
        load: reads one.
        encode: maps (n, 3, H, W) in 0..1 → features (n, c, h, w) on the device.
        memory: keeps the features.
        budget: bytes of features kept. When they are used up, further frames are encoded at each use. To
            drop the oldest instead would help nothing: a loop that does not fit would push out itself.
        batch: frames encoded at a time.
        kept: features that earlier starts made. None: every start makes its own.

    Raises:
        AssetError: no file can be used.
    """

    #: The poses, in the order of their files; the first is the default.
    names: list[str]
    #: Bytes of features kept.
    bytes: int
    #: Frames whose features were at hand.
    hits: int
    #: Frames whose features had to be made.
    misses: int

    def __init__(
        self,
        paths: Sequence[Path],
        load: Callable[[Path], Track],
        encode: Callable[[NDArray[np.float32]], F],
        memory: FeatureMemory[F],
        *,
        budget: int,
        batch: int = 12,
        kept: PoseShelf | None = None,
    ) -> None:
        self._kept = kept
        self._memory = memory
        self._encode = encode
        self._budget = budget
        self._batch = batch
        self._files = pose_files(paths)
        self._tracks = _load_tracks(paths, load)
        self.names = list(self._tracks)
        #: Features (frames, c, h, w) of whole poses that lie on disk, mapped.
        self._whole: dict[str, F] = {}
        self._asked: set[str] = set()
        self._failed: set[str] = set()  # poses that could not be written
        self._features: dict[tuple[str, int], F] = {}
        self._lock = threading.Lock()
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def resolve(self, name: str) -> str:
        """The pose's name: `name` itself, or the first one for `default`.

        Raises:
            ClipError: there is no such pose.
        """
        if name in self._tracks:
            return name
        if name == DEFAULT_NAME:
            return self.names[0]
        raise ClipError(f"there is no pose {name}; there are {listed(self.names)}", fatal=True)

    def file(self, name: str) -> Path:
        """The file of a pose. Raises ClipError: there is no such pose."""
        return self._files[self.resolve(name)]

    def frame_indices(self, name: str, pts: int, fps: int, count: int) -> list[int]:
        """Numbers of the pose frames nearest in time to a clip's frames. Poses loop.

        Args:
            name: of the pose.
            pts: position of the clip, in samples at 16 kHz.
            fps: of the clip.
            count: frames of the clip.
        """
        track = self._tracks[self.resolve(name)]
        # Frame i is at pts/16000 + i/fps seconds. As a fraction of whole numbers, it cannot drift in a long
        # session.
        unit = SAMPLE_RATE * fps
        return [
            (2 * (pts * fps + i * SAMPLE_RATE) * track.fps + unit) // (2 * unit) % len(track)
            for i in range(count)
        ]

    def gather(self, name: str, indices: Sequence[int]) -> F:
        """Features (len(indices), c, h, w) of these frames of the pose, on the device."""
        name = self.resolve(name)
        with self._lock:
            if self._is_whole(name):
                self.hits += len(indices)
                whole: F = self._whole[name][list(indices)]
                return whole
            missing = sorted({i for i in indices if (name, i) not in self._features})
            self.hits += len(indices) - len(missing)
            self.misses += len(missing)
            fresh = self._encode_frames(name, missing)
            frames = [fresh[i] if i in fresh else self._features[name, i] for i in indices]
            return self._memory.join(frames)

    def warm_some(self, name: str) -> bool:
        """Encodes one batch of the pose's frames that are not kept yet.

        Returns:
            False if all are kept or the budget is used up.
        """
        name = self.resolve(name)
        with self._lock:
            if self._is_whole(name):
                return False
            frames = range(len(self._tracks[name]))
            missing = [i for i in frames if (name, i) not in self._features][: self._batch]
            if not missing:
                return self._move_to_disk(name)
            if self.bytes >= self._budget:
                return False
            before = self.bytes
            self._encode_frames(name, missing)
            return self.bytes > before  # a last piece of the budget may be too small for a frame

    def warm_frames(self, name: str, indices: Sequence[int], count: int = 2) -> bool:
        """Encodes `count` of these frames that are not kept yet, so that `gather` finds them.

        Returns:
            False if none was left, or the budget is used up.
        """
        name = self.resolve(name)
        with self._lock:
            if self._is_whole(name):
                return False
            missing = sorted({i for i in indices if (name, i) not in self._features})[:count]
            before = self.bytes
            if missing and self.bytes < self._budget:
                self._encode_frames(name, missing)
            return self.bytes > before

    def _is_whole(self, name: str) -> bool:
        """Whether all features of the pose lie on disk. The caller holds the lock."""
        if self._kept is not None and name not in self._asked:
            self._asked.add(name)
            self._map(name)
        return name in self._whole

    def _map(self, name: str) -> None:
        assert self._kept is not None
        features = self._kept.load(self._files[name])
        if features is not None and len(features) == len(self._tracks[name]):
            self._whole[name] = self._memory.from_array(features)

    def _move_to_disk(self, name: str) -> bool:
        """Keeps the pose, of which every frame is encoded, on disk instead of in memory, if it can be."""
        if self._kept is None or name in self._failed:
            return False
        features = self._memory.join([self._features[name, i] for i in range(len(self._tracks[name]))])
        if self._kept.store(self._files[name], self._memory.to_array(features)):
            self._map(name)
        if name not in self._whole:
            self._failed.add(name)
            return False
        for i in range(len(features)):
            self.bytes -= self._features.pop((name, i)).nbytes
        return True

    def _encode_frames(self, name: str, indices: Sequence[int]) -> dict[int, F]:
        """Features by frame, kept as far as the budget goes. The caller holds the lock."""
        made: dict[int, F] = {}
        for start in range(0, len(indices), self._batch):
            some = indices[start : start + self._batch]
            features = self._encode(self._tracks[name].draw(some))
            made |= {i: features[place] for place, i in enumerate(some)}
        for i, feature in made.items():
            if self.bytes + feature.nbytes <= self._budget:
                self._features[name, i] = self._memory.keep(feature)
                self.bytes += feature.nbytes
        return made


def _load_tracks(paths: Sequence[Path], load: Callable[[Path], Track]) -> dict[str, Track]:
    tracks: dict[str, Track] = {}
    errors: list[str] = []
    files = pose_files(paths, errors)
    for text in errors:
        logger.error("left out: %s", text)
    for name, file in files.items():
        try:
            track = load(file)
            if len(track) < 1:
                raise AssetError(f"{file}: a pose without frames")
            tracks[name] = track
        except (ValueError, OSError, KeyError, TypeError, EOFError) as error:
            text = str(error) if str(file) in str(error) else f"{file}: not a pose file: {error}"
            errors.append(text)
            logger.error("pose %s is left out: %s", name, text)
    if not tracks:
        raise AssetError("; ".join(errors[:3]))
    return tracks
