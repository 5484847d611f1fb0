"""Avatars and poses: files with names, read with care, their features made once and kept."""

from __future__ import annotations

import logging
import re
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from gpu_worker.work import ClipError
from protocol.settings import ROOT, Settings, SettingsError

logger = logging.getLogger(__name__)

DEFAULT = "default"
FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MAX_FILE_BYTES = 64 * 2**20
MAX_PIXELS = 64_000_000
MAX_AVATARS = 256
REFERENCES_KEPT = 16

Picture = npt.NDArray[np.uint8]
R = TypeVar("R")


class AvatarError(SettingsError):
    """A picture or pose file can't be used; the text names the file and what to do."""


def read_picture(path: Path, width: int, height: int) -> Picture:
    """The picture as uint8 RGB (height, width, 3): its middle in the asked-for shape, transparency on white.

    Raises AvatarError naming the file. Nothing is decoded before format and size have been checked.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise AvatarError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; give a smaller picture")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is the limit here
            with Image.open(path, formats=FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise AvatarError(
                        f"{path}: {picture.width}×{picture.height} pixels are more than {MAX_PIXELS // 10**6}"
                        " million; give a smaller picture"
                    )
                upright = ImageOps.exif_transpose(picture).convert("RGBA")
    except AvatarError:
        raise
    except FileNotFoundError:
        raise AvatarError(f"{path}: no such picture") from None
    except Exception as error:  # decoders raise all kinds of things for damaged files
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "it is no PNG, JPEG or WebP" if unknown else error
        raise AvatarError(f"{path}: cannot be read as a picture: {reason}") from error
    on_white = Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")
    fitted = ImageOps.fit(on_white, (width, height), Image.Resampling.LANCZOS)
    return np.array(fitted, dtype=np.uint8)


def avatar_paths(settings: Settings) -> Sequence[Path]:
    """Where the avatars are: --reference-image, else the folder of bundled ones."""
    return settings.reference_image or (settings.avatar_dir,)


def pose_paths(settings: Settings) -> Sequence[Path]:
    """Where the poses are: --pose-dir, else the bundled ones."""
    return settings.pose_dir or (ROOT / "demo/poses",)


def name_of(path: Path) -> str:
    """The file's stem with what an id may not hold replaced by '_'."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)[:64] or "_"


def named_files(paths: Iterable[Path], suffixes: Sequence[str], what: str) -> OrderedDict[str, Path]:
    """Name → file of all files with one of `suffixes`, given one by one or by their folder, in that order.

    Raises AvatarError for a path that does not exist or none at all. Of two files with one name the first
    is taken, and the log says so.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and p.is_file())
        elif path.is_file():
            files.append(path)
        else:
            raise AvatarError(f"{path}: no such {what} or folder")
    named: OrderedDict[str, Path] = OrderedDict()
    for file in files:
        other = named.setdefault(name_of(file), file)
        if other is not file:
            logger.warning("%s is left out: %s has the same name", file, other)
    if len(named) > MAX_AVATARS:
        logger.warning("%d %ss found, only the first %d are used", len(named), what, MAX_AVATARS)
    if not named:
        where = ", ".join(str(path) for path in paths)
        raise AvatarError(f"no {what} ({', '.join(suffixes)}) in {where}")
    return OrderedDict(list(named.items())[:MAX_AVATARS])


class AvatarStore(Generic[R]):
    """The avatars by name, and the reference features of those used lately.

    Args:
        paths: pictures and folders of them. One that can't be read is left out, with an error in the log;
            AvatarError if none can.
        prepare: makes the reference features, keys and values from a uint8 (height, width, 3) picture.

    References are made in the compute thread alone; `names` and the counters may be read from any.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        width: int,
        height: int,
        prepare: Callable[[Picture], R],
        *,
        keep: int = REFERENCES_KEPT,
    ) -> None:
        self._size = (width, height)
        self._prepare = prepare
        self._keep = keep
        self._references: OrderedDict[str, R] = OrderedDict()
        self._files = self._readable(named_files(paths, SUFFIXES, "picture"))
        self.names: list[str] = list(self._files)
        self.hits = 0
        self.misses = 0

    def _readable(self, files: OrderedDict[str, Path]) -> OrderedDict[str, Path]:
        readable, errors = OrderedDict[str, Path](), []
        for name, file in files.items():
            try:
                read_picture(file, *self._size)
                readable[name] = file
            except AvatarError as error:
                errors.append(str(error))
                logger.error("avatar %s is left out: %s", name, error)
        if not readable:
            raise AvatarError("; ".join(errors[:3]))
        return readable

    def resolve(self, name: str) -> str:
        """`name`, or the first avatar's for `default`. Raises ClipError for an unknown one."""
        if name in self._files:
            return name
        if name == DEFAULT:
            return self.names[0]
        raise ClipError(f"there is no avatar {name}; there are {_listed(self.names)}", fatal=True)

    def get(self, name: str) -> R:
        """The avatar's reference, made now if it isn't at hand. Raises ClipError."""
        name = self.resolve(name)
        if name in self._references:
            self.hits += 1
            self._references.move_to_end(name)
            return self._references[name]
        self.misses += 1
        try:
            picture = read_picture(self._files[name], *self._size)
        except AvatarError as error:
            raise ClipError(str(error), fatal=True) from error
        reference = self._prepare(picture)
        logger.info("reference caching: avatar %s is ready and kept for all its sessions", name)
        self._references[name] = reference
        while len(self._references) > self._keep:
            gone, _ = self._references.popitem(last=False)
            logger.info("reference caching: avatar %s makes room (%d are kept)", gone, self._keep)
        return reference

    def warm_one(self) -> bool:
        """Makes the reference of one avatar that has none and still fits; False if there is none left."""
        if len(self._references) >= self._keep:
            return False
        for name in self.names:
            if name not in self._references:
                self.get(name)
                return True
        return False

    def __len__(self) -> int:
        return len(self._references)


class Track(Protocol):
    """A pose sequence: `len` frames at `fps`, drawn as float32 maps (n, 3, h, w) in 0..1."""

    @property
    def fps(self) -> int: ...

    def __len__(self) -> int: ...

    def draw(self, indices: Sequence[int]) -> torch.Tensor: ...


class PoseStore:
    """The poses by name, and the pose encoder's features of frames drawn before.

    Args:
        paths: `.npz` pose files and folders of them, read with `load`. A damaged one is left out, with an
            error in the log; AvatarError if none is left.
        encode: maps float32 (n, 3, H, W) in 0..1 → features (n, c, h, w) on the device.
        budget: bytes of features kept. When they are used up, further frames are encoded at each use: a
            loop that does not fit would only push itself out of a cache of the latest.

    Thread-safe: the prefetch thread gathers while the compute thread warms.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        load: Callable[[Path], Track],
        encode: Callable[[torch.Tensor], torch.Tensor],
        *,
        budget: int,
        batch: int = 12,
    ) -> None:
        self._encode = encode
        self._budget = budget
        self._batch = batch
        self._tracks = _load_tracks(named_files(paths, (".npz",), "pose"), load)
        self.names: list[str] = list(self._tracks)
        self._features: dict[tuple[str, int], torch.Tensor] = {}
        self._lock = threading.Lock()
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def resolve(self, name: str) -> str:
        """`name`, or the first pose's for `default`. Raises ClipError for an unknown one."""
        if name in self._tracks:
            return name
        if name == DEFAULT:
            return self.names[0]
        raise ClipError(f"there is no pose {name}; there are {_listed(self.names)}", fatal=True)

    def frame_indices(self, name: str, pts: int, fps: int, count: int) -> list[int]:
        """The pose frame nearest in time to each of `count` frames that follow `pts` at `fps`; poses loop."""
        track = self._tracks[self.resolve(name)]
        # Frame i shows time pts/16000 + i/fps, kept as a fraction so that a long session can't drift.
        unit = 16000 * fps
        return [
            (2 * (pts * fps + i * 16000) * track.fps + unit) // (2 * unit) % len(track) for i in range(count)
        ]

    def gather(self, name: str, indices: Sequence[int]) -> torch.Tensor:
        """Features (frames, c, h, w) of these frames of the pose."""
        name = self.resolve(name)
        with self._lock:
            missing = sorted({i for i in indices if (name, i) not in self._features})
            self.hits += len(indices) - len(missing)
            self.misses += len(missing)
            fresh = self._made(name, missing)
            frames = [fresh[i] if i in fresh else self._features[name, i] for i in indices]
            return torch.stack(frames)

    def warm_some(self, name: str) -> bool:
        """Encodes one batch of the pose's frames not seen yet; False if all are kept or no room is left."""
        name = self.resolve(name)
        with self._lock:
            frames = range(len(self._tracks[name]))
            missing = [i for i in frames if (name, i) not in self._features][: self._batch]
            return bool(missing) and self.bytes < self._budget and bool(self._made(name, missing))

    def _made(self, name: str, indices: Sequence[int]) -> dict[int, torch.Tensor]:
        made: dict[int, torch.Tensor] = {}
        for start in range(0, len(indices), self._batch):
            some = indices[start : start + self._batch]
            features = self._encode(self._tracks[name].draw(some))
            for i, feature in zip(some, features, strict=True):
                # A copy of its own, so that one kept frame does not hold its whole batch.
                made[i] = feature.clone()
        for i, feature in made.items():
            size = feature.numel() * feature.element_size()
            if self.bytes + size <= self._budget:
                self._features[name, i] = feature
                self.bytes += size
        return made


def _load_tracks(files: OrderedDict[str, Path], load: Callable[[Path], Track]) -> dict[str, Track]:
    tracks: dict[str, Track] = {}
    errors: list[str] = []
    for name, file in files.items():
        try:
            track = load(file)
            if len(track) < 1:
                raise AvatarError(f"{file}: a pose without frames")
            tracks[name] = track
        except (ValueError, OSError, KeyError, TypeError, EOFError) as error:
            text = str(error) if str(file) in str(error) else f"{file}: not a pose file: {error}"
            errors.append(text)
            logger.error("pose %s is left out: %s", name, text)
    if not tracks:
        raise AvatarError("; ".join(errors[:3]))
    return tracks


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
