"""Converts official pose folders at start-up, in another process, because reading them means unpickling."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from scripts.run.rundir import POSES, make_subfolder
from scripts.run.start import command_of


class PoseError(ValueError):
    """A pose folder cannot be used. The text names it."""


def convert_pose_folders(folders: Sequence[Path], run_dir: Path) -> tuple[Path, ...]:
    """Replace each folder of official pickled `.npy` by the `.npz` made from it. Others pass unchanged.

    The results lie in the run folder and go with it.

    Raises:
        PoseError: a folder cannot be converted. The text has the converter's own words.
    """
    if not any(is_official(folder) for folder in folders):
        return tuple(folders)
    made = make_subfolder(run_dir, POSES)
    return tuple(
        _convert(folder, made / f"{number}") if is_official(folder) else folder
        for number, folder in enumerate(folders)
    )


def is_official(folder: Path) -> bool:
    """Whether this is a folder of the official pickled files."""
    return folder.is_dir() and any(folder.glob("*.npy"))


def _convert(folder: Path, target: Path) -> Path:
    # The folder above gives its name too: of two poses with one name, people see it as well.
    folder_above = target / (folder.resolve().parent.name or "root")
    folder_above.mkdir(parents=True)
    file = folder_above / f"{folder.resolve().name}.npz"
    command = command_of(sys.executable, "scripts.convert_pose", str(folder), str(file))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PoseError(f"--pose-dir {folder}: {done.stderr.strip() or 'conversion failed'}")
    return file
