"""Avatars and poses: their files and their names.

Each has an id, which the wire carries, and a display name, which people see. The GPU worker serves them by
these ids, and the gateway shows them by the same ids, so both must agree.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import unicodedata
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from protocol.process.settings import ROOT, Settings, SettingsError

#: The name that stands for the first avatar or pose.
DEFAULT_NAME = "default"

#: Longest id of an avatar or pose, in characters.
MAX_ID_CHARS = 64

#: Endings of pictures. No picture with an ending of the last line can be read. They are listed so that an
#: error names such a file.
PICTURE_SUFFIXES = (
    *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff"),
    *(
        ".jp2",
        ".j2k",
        ".jpx",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".ico",
        ".icns",
        ".psd",
        ".qoi",
        ".dds",
        ".pcx",
    ),
    *(".sgi", ".tga"),
    *(".heic", ".heif", ".jxl"),
)

#: Endings of pose files.
POSE_SUFFIXES = (".npz",)

# They join letters, and the parts of an emoji.
_JOINERS = "\u200c\u200d"

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


class AssetError(SettingsError):
    """A picture or pose file cannot be used. The message names the file and the remedy."""


def avatar_paths(settings: Settings) -> Sequence[Path]:
    """Pictures and folders of avatars: `--reference-image`, else the folder of bundled ones."""
    return settings.reference_image or (settings.avatar_dir,)


def pose_paths(settings: Settings) -> Sequence[Path]:
    """Files and folders of poses: `--pose-dir`, else the bundled ones."""
    return settings.pose_dir or (ROOT / "demo/bundled/poses",)


def picture_files(paths: Iterable[Path], faults: list[str] | None = None) -> OrderedDict[str, Path]:
    """Avatars' ids and files, in the order of `paths`. Raises AssetError as `named_files` does."""
    return named_files(paths, PICTURE_SUFFIXES, "picture", faults)


def pose_files(paths: Iterable[Path], faults: list[str] | None = None) -> OrderedDict[str, Path]:
    """Poses' ids and files, in the order of `paths`. Raises AssetError as `named_files` does."""
    return named_files(paths, POSE_SUFFIXES, "pose", faults)


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


def named_files(
    paths: Iterable[Path], suffixes: Sequence[str], kind: str, faults: list[str] | None = None
) -> OrderedDict[str, Path]:
    """Ids and files, in order. Whether a file can be read is not looked at.

    Of two files with one name, the second gets a number at its id's end. A file that is given twice is
    taken once.

    Args:
        paths: files, taken whatever their ending, and folders, whose files are taken in the order of names.
        suffixes: endings of the files that are taken from folders. Hidden files are not taken.
        kind: the word for such a file in messages.
        faults: takes a sentence for each path that gives no file. It names the path.

    Raises:
        AssetError: no path gives a file.
    """
    faults = [] if faults is None else faults
    found: list[Path] = []
    for path in paths:
        try:
            found += _files_at(path, suffixes, kind)
        except AssetError as error:
            faults.append(str(error))
        except OSError as error:
            faults.append(f"{path}: {access_fault(error, f'{kind} or folder')}")
        except ValueError as error:  # no file can have such a name, with a NUL for example
            faults.append(f"{str(path)!a}: {error}")
    files = list({os.path.abspath(file): file for file in found}.values())
    if len(files) > MAX_ASSETS:
        faults.append(f"{len(files)} {kind}s found, only the first {MAX_ASSETS} are used")
    if not files:
        raise AssetError("; ".join(faults[:3]) or f"no {kind} is named")
    return _by_id(files[:MAX_ASSETS])


def _files_at(path: Path, suffixes: Sequence[str], kind: str) -> list[Path]:
    """The file at `path`, or the folder's files with these endings: at least one."""
    if not stat.S_ISDIR(path.stat().st_mode):
        if not path.is_file():  # to open a pipe would wait for its writer
            raise AssetError(f"{path}: is not a file")
        return [path]
    names = sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes and p.name[0] != ".")
    # A link to nothing is taken here, so that whoever reads it says so.
    files = [p for p in names if p.is_file() or not p.exists()]
    if not files:
        endings = ", ".join([*suffixes[:4], *("…" for _ in suffixes[4:5])])
        raise AssetError(f"{path}: holds no {kind} ({endings})")
    return files


def access_fault(error: OSError, kind: str) -> str:
    """Why the file system does not give a file or folder, and what to do."""
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"no such {kind}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "this user may not read it; give the right with chmod a+rX, or copy it"
    return error.strerror or str(error)


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


def display_name(text: str) -> str:
    """A name that somebody gave, on one line, as `display_names` shows it. Empty where there is none."""
    return _titled(_shown(text)) if text.strip() else ""


def _ways_to_show(name: str, file: Path) -> tuple[str, ...]:
    stem, whole, folder = (_shown(part) for part in (file.stem, file.name, file.absolute().parent.name))
    return _titled(stem), stem, whole, f"{stem} ({folder})", f"{whole} ({folder})", f"{stem} · {name}"


def _titled(text: str) -> str:
    """A plain word in lower case with a capital letter, and spaces for '_' and '-'. Other names unchanged."""
    if not re.fullmatch(r"[a-z0-9]+(?:[_-][a-z0-9]+)*", text):
        return text
    return text[0].upper() + re.sub("[_-]", " ", text[1:])


def _shown(text: str) -> str:
    """The text on one line, for names from any file system.

    Marks that turn the direction of writing would disorder the text around the name, so they are left out.
    """
    text = unicodedata.normalize("NFC", text.encode(errors="surrogateescape").decode(errors="replace"))
    return " ".join("".join(map(_shown_character, text)).split()) or "_"


def _shown_character(character: str) -> str:
    if character.isprintable() or character in _JOINERS:
        return character
    return "" if unicodedata.category(character) == "Cf" else " "


def listed(names: Sequence[str]) -> str:
    """The ids, for an error's text."""
    return ", ".join(names[:20]) + (", …" if len(names) > 20 else "")
