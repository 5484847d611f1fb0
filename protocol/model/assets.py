"""Avatars and poses: their files, their names, and how a picture is read.

Each has an id, which the wire carries, and a display name, which people see. The GPU worker serves them by
these ids, and the gateway shows them by the same ids, so both must agree.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import unicodedata
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from protocol.model.file_damage import stand_in_error
from protocol.process.settings import ROOT, Settings, SettingsError

logger = logging.getLogger(__name__)

#: The name that stands for the first avatar or pose.
DEFAULT_NAME = "default"

#: Longest id of an avatar or pose, in characters.
MAX_ID_CHARS = 64

#: Formats of pictures, by Pillow's names, and the endings of their files.
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

#: Endings of pose files.
POSE_SUFFIXES = (".npz",)

#: Bones between a hand's 21 points in OpenPose: the wrist, then four joints a finger from the thumb on.
HAND_BONES = tuple(
    (0 if joint == 0 else 4 * finger + joint, 4 * finger + joint + 1)
    for finger in range(5)
    for joint in range(4)
)

#: Least score of a hand's point that is drawn, in the model's pose maps and on the page's cards.
MIN_POINT_SCORE = 0.3

#: Avatars, and poses, that are used at most: the status message that lists them is bounded.
MAX_ASSETS = 256

#: Bytes of a picture's file, and pixels of a picture, that are read at most.
MAX_PICTURE_BYTES = 64 * 2**20
MAX_PICTURE_PIXELS = 64_000_000


class AssetError(SettingsError):
    """A picture or pose file cannot be used. The message names the file and the remedy."""


def avatar_paths(settings: Settings) -> Sequence[Path]:
    """Pictures and folders of avatars: `--reference-image`, else the folder of bundled ones."""
    return settings.reference_image or (settings.avatar_dir,)


def pose_paths(settings: Settings) -> Sequence[Path]:
    """Files and folders of poses: `--pose-dir`, else the bundled ones."""
    return settings.pose_dir or (ROOT / "demo/bundled/poses",)


def picture_files(paths: Iterable[Path]) -> OrderedDict[str, Path]:
    """Avatars' ids and files, in the order of `paths`. Raises AssetError as `named_files` does."""
    return named_files(paths, PICTURE_SUFFIXES, "picture")


def pose_files(paths: Iterable[Path]) -> OrderedDict[str, Path]:
    """Poses' ids and files, in the order of `paths`. Raises AssetError as `named_files` does."""
    return named_files(paths, POSE_SUFFIXES, "pose")


def name_of(path: Path) -> str:
    """An id (`[A-Za-z0-9_.-]`, 1 to 64 characters) from the name that people gave the file.

    An ASCII name keeps its letters, with '_' for each character that an id may not hold. Other names, and
    names too long for an id, end with a hash of the whole name, so that 张三 and 李四 have ids of their own
    on every machine.
    """
    stem = unicodedata.normalize("NFC", path.stem)
    if stem.isascii() and len(stem) <= MAX_ID_CHARS:
        return _id_characters(stem) or "_"
    mark = hashlib.sha256(stem.encode(errors="surrogateescape")).hexdigest()[:8]
    plain = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    return f"{_id_characters(plain).strip('_')[: MAX_ID_CHARS - 9]}-{mark}".lstrip("-")


def _id_characters(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "_", text)


def named_files(paths: Iterable[Path], suffixes: Sequence[str], kind: str) -> OrderedDict[str, Path]:
    """Ids and files, in order.

    Of two files with one name, the second gets a number at its id's end. A file that is given twice is
    taken once.

    Args:
        paths: files, taken whatever their ending, and folders, whose files are taken in the order of names.
        suffixes: endings of the files that are taken from folders.
        kind: the word for such a file in messages.

    Raises:
        AssetError: a path does not exist, or there is no file at all.
    """
    paths = list(paths)
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            found += sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and p.is_file())
        elif path.is_file():
            found.append(path)
        else:
            raise AssetError(f"{path}: no such {kind} or folder")
    files = list({os.path.abspath(file): file for file in found}.values())
    if len(files) > MAX_ASSETS:
        logger.warning("%d %ss found, only the first %d are used", len(files), kind, MAX_ASSETS)
    if not files:
        where = ", ".join(str(path) for path in paths)
        raise AssetError(f"no {kind} ({', '.join(suffixes)}) in {where}")
    return _by_id(files[:MAX_ASSETS])


def _by_id(files: Sequence[Path]) -> OrderedDict[str, Path]:
    own = [name_of(file) for file in files]
    named: OrderedDict[str, Path] = OrderedDict()
    for name, file in zip(own, files, strict=True):
        unique, number = name, 1
        while unique in named or (number > 1 and unique in own):
            number += 1
            unique = f"{name[: MAX_ID_CHARS - 4]}-{number}"
        named[unique] = file
    return named


def display_names(files: Mapping[str, Path]) -> dict[str, str]:
    """Display names by id: the names that people gave the files, each different from every other.

    A plain word such as `my_face` is shown as "My face". Files that would be shown alike get more of their
    names: first as given, then with the suffix, with the folder, or with both. Files that even so are alike
    get their id.

    Args:
        files: by id, as `picture_files` and `pose_files` give them.
    """
    alike: dict[str, list[str]] = {}
    for name, file in files.items():
        alike.setdefault(_titled(_shown(file.stem)), []).append(name)
    shown: dict[str, str] = {}
    for names in alike.values():
        for ways in zip(*(_ways_to_show(name, files[name]) for name in names), strict=True):
            # Another group may hold such a name already.
            if len(set(ways)) == len(ways) and not set(ways) & set(shown.values()):
                shown.update(zip(names, ways, strict=True))
                break
    return {name: shown.get(name, name) for name in files}


def _ways_to_show(name: str, file: Path) -> tuple[str, ...]:
    stem, whole, folder = (_shown(part) for part in (file.stem, file.name, file.absolute().parent.name))
    return _titled(stem), stem, whole, f"{stem} ({folder})", f"{whole} ({folder})", f"{stem} · {name}"


def _titled(text: str) -> str:
    """A plain word in lower case with a capital letter, and spaces for '_' and '-'. Other names unchanged."""
    if not re.fullmatch(r"[a-z0-9]+(?:[_-][a-z0-9]+)*", text):
        return text
    return text[0].upper() + re.sub("[_-]", " ", text[1:])


def _shown(text: str) -> str:
    """The text on one line, for names from any file system."""
    text = unicodedata.normalize("NFC", text.encode(errors="surrogateescape").decode(errors="replace"))
    return (
        " ".join("".join(c if c.isprintable() or c in "\u200c\u200d" else " " for c in text).split()) or "_"
    )


def listed(names: Sequence[str]) -> str:
    """The ids, for an error's text."""
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


def read_picture(path: Path, size: tuple[int, int] | None = None) -> Image.Image:
    """A picture as RGB, upright as its EXIF data says, transparency on white.

    Format and pixels are checked before anything is decoded.

    Args:
        path: the file.
        size: (width, height) of the frames to be made of it. The picture is cropped to their shape and
            resized. A wide picture keeps its middle. A tall one keeps its top, where the head is.

    Raises:
        AssetError: the file is missing, too large, damaged or of another format. Names the file.
    """
    try:
        if path.stat().st_size > MAX_PICTURE_BYTES:
            raise AssetError(f"{path}: larger than {MAX_PICTURE_BYTES >> 20} MiB; give a smaller picture")
        with warnings.catch_warnings():
            # Pillow's limit is another one; MAX_PICTURE_PIXELS is the limit here.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path, formats=PICTURE_FORMATS) as picture:
                _check_pixels(path, picture)
                upright = ImageOps.exif_transpose(picture).convert("RGBA")
    except AssetError:
        raise
    except FileNotFoundError:
        raise AssetError(f"{path}: no such picture") from None
    except Exception as error:  # decoders raise all kinds of things for damaged files
        raise AssetError(_reason(path, error)) from error
    if size is not None:
        upright = ImageOps.fit(upright, size, Image.Resampling.LANCZOS, centering=(0.5, 0.0))
    return Image.alpha_composite(Image.new("RGBA", upright.size, "white"), upright).convert("RGB")


def _check_pixels(path: Path, picture: Image.Image) -> None:
    if picture.width * picture.height > MAX_PICTURE_PIXELS:
        raise AssetError(
            f"{path}: {picture.width}×{picture.height} pixels are more than"
            f" {MAX_PICTURE_PIXELS // 10**6} million; give a smaller picture"
        )


def _reason(path: Path, error: Exception) -> str:
    if not isinstance(error, UnidentifiedImageError):
        return f"{path}: cannot be read as a picture: {error}"
    return stand_in_error(path) or f"{path}: cannot be read as a picture: it is no PNG, JPEG or WebP"
