"""Avatars and poses: their files, their names, and how a picture is read.

The GPU worker serves them by these names, and the gateway shows them by the same names, so both must agree.
"""

from __future__ import annotations

import logging
import re
import warnings
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from protocol.model.lfs_pointer import lfs_pointer_error
from protocol.process.settings import ROOT, Settings, SettingsError

logger = logging.getLogger(__name__)

#: The name that stands for the first avatar or pose.
DEFAULT_NAME = "default"

#: Formats of pictures, by Pillow's names, and the endings of their files.
PICTURE_FORMATS = ("PNG", "JPEG", "WEBP")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")

#: Endings of pose files.
POSE_SUFFIXES = (".npz",)

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
    """Avatars' names and files, in the order of `paths`. Raises AssetError as `named_files` does."""
    return named_files(paths, PICTURE_SUFFIXES, "picture")


def pose_files(paths: Iterable[Path]) -> OrderedDict[str, Path]:
    """Poses' names and files, in the order of `paths`. Raises AssetError as `named_files` does."""
    return named_files(paths, POSE_SUFFIXES, "pose")


def name_of(path: Path) -> str:
    """The file's stem, with '_' for each character that an id may not hold."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem)[:64] or "_"


def named_files(paths: Iterable[Path], suffixes: Sequence[str], kind: str) -> OrderedDict[str, Path]:
    """Names and files, in order.

    Of two files with one name the first is taken, and the log says so.

    Args:
        paths: files, taken whatever their ending, and folders, whose files are taken in the order of names.
        suffixes: endings of the files that are taken from folders.
        kind: the word for such a file in messages.

    Raises:
        AssetError: a path does not exist, or there is no file at all.
    """
    paths = list(paths)
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and p.is_file())
        elif path.is_file():
            files.append(path)
        else:
            raise AssetError(f"{path}: no such {kind} or folder")
    named: OrderedDict[str, Path] = OrderedDict()
    for file in files:
        other = named.setdefault(name_of(file), file)
        if other is not file:
            logger.warning("%s is left out: %s has the same name", file, other)
    if len(named) > MAX_ASSETS:
        logger.warning("%d %ss found, only the first %d are used", len(named), kind, MAX_ASSETS)
    if not named:
        where = ", ".join(str(path) for path in paths)
        raise AssetError(f"no {kind} ({', '.join(suffixes)}) in {where}")
    return OrderedDict(list(named.items())[:MAX_ASSETS])


def listed(names: Sequence[str]) -> str:
    """The names, for an error's text."""
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")


def read_picture(path: Path, max_side: int | None = None) -> Image.Image:
    """A picture as RGB, upright as its EXIF data says, transparency on white.

    Format and size are checked before anything is decoded.

    Args:
        path: the file.
        max_side: the longest side allowed, in pixels. A larger picture is made smaller and keeps its shape.

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
    if max_side is not None:
        upright.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
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
    return lfs_pointer_error(path) or f"{path}: cannot be read as a picture: it is no PNG, JPEG or WebP"
