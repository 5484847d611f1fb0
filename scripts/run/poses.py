"""Converts official pose folders at start-up, in another process, because reading them means unpickling."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.run.rundir import POSES, make_subfolder
from scripts.run.start import command_of

#: Most bytes of a file's name.
MAX_NAME_BYTES = 255

#: Ending of a converted pose.
SUFFIX = ".npz"


class PoseError(ValueError):
    """A pose folder cannot be used. The text names it."""


def convert_pose_folders(
    folders: Sequence[Path], run_dir: Path, left_out: list[str] | None = None
) -> tuple[Path, ...]:
    """Replace each folder of official pickled `.npy` by the `.npz` made from it. Others pass unchanged.

    The results lie in the run folder and go with it.

    Args:
        folders: those of `--pose-dir`.
        run_dir: the run folder.
        left_out: takes a sentence for each folder that cannot be converted, in the converter's own words.

    Raises:
        PoseError: a folder cannot be converted, and no other is there.
    """
    if not any(is_official(folder) for folder in folders):
        return tuple(folders)
    left_out = [] if left_out is None else left_out
    made = make_subfolder(run_dir, POSES)
    usable: list[Path] = []
    for number, folder in enumerate(folders):
        try:
            usable.append(_convert(folder, made / f"{number}") if is_official(folder) else folder)
        except PoseError as error:
            left_out.append(f"left out: {error}")
    if not usable:
        raise PoseError("; ".join(text.removeprefix("left out: ") for text in left_out[:3]))
    return tuple(usable)


def is_official(folder: Path) -> bool:
    """Whether this is a folder of the official pickled files. One that may not be read is not known to be."""
    try:
        return folder.is_dir() and any(folder.glob("*.npy"))
    except OSError:  # whoever looks for poses next names it
        return False


def _convert(folder: Path, target: Path) -> Path:
    # Resolved: the folder may be named `.`, and a name may begin with the sign of a flag.
    source = folder.resolve()
    # The folder above gives its name too: of two poses with one name, people see it as well.
    folder_above = target / (source.parent.name or "root")
    folder_above.mkdir(parents=True)
    file = folder_above / f"{_cut(source.name, MAX_NAME_BYTES - len(SUFFIX))}{SUFFIX}"
    command = command_of(sys.executable, "scripts.convert_pose", str(source), str(file))
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        words = done.stderr.strip().removeprefix("convert_pose: ")
        raise PoseError(f"--pose-dir {folder}: {words or 'conversion failed'}")
    return file


def _cut(name: str, most: int) -> str:
    """The name in at most this many bytes of the file system, with whole characters."""
    while len(os.fsencode(name)) > most:
        name = name[:-1]
    return name
