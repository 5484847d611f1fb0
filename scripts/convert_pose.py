"""Convert a folder of official DWPose files (0.npy, 1.npy, …) into one pose track without pickles.

    python -m scripts.convert_pose FOLDER OUT.npz [--fps 24]

The official files are pickled dictionaries. They are read here, offline, by an unpickler that admits nothing
but numpy arrays. The serving processes read only the `.npz`.
"""

from __future__ import annotations

import argparse
import io
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np

from protocol.model.file_damage import stand_in_error

MAX_FILE_BYTES = 16 * 2**20
# numpy 2 moved the module, so files of either version name it differently.
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


class ConvertError(ValueError):
    """A file or folder cannot be converted. The text names it."""


class RestrictedUnpickler(pickle.Unpickler):
    """Builds numpy arrays and plain Python values, and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise ConvertError(f"it holds {module}.{name}, and only numpy arrays are admitted")
        return super().find_class(module, name)


def read_pose(path: Path) -> dict[str, Any]:
    """The dictionary in one DWPose `.npy`.

    Raises:
        ConvertError: it is no such file. The text names it.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConvertError(f"larger than {MAX_FILE_BYTES >> 20} MiB")
        stream = io.BytesIO(path.read_bytes())
        version = np.lib.format.read_magic(stream)
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        if version not in readers:
            raise ConvertError(f"unknown .npy version {version}")
        _, _, dtype = readers[version](stream)
        if not dtype.hasobject:
            raise ConvertError("a plain array, not a pose")
        value = RestrictedUnpickler(stream).load()
        pose = value.item() if isinstance(value, np.ndarray) else value
    except Exception as error:  # a damaged pickle raises all kinds of things
        raise ConvertError(stand_in_error(path) or f"{path}: not a DWPose file: {error}") from error
    if not isinstance(pose, dict):
        raise ConvertError(f"{path}: not a DWPose file: it holds no dictionary")
    return pose


def convert(folder: Path, fps: int) -> dict[str, np.ndarray]:
    """Arrays of the pose track of all frames 0.npy … N-1.npy in `folder`.

    A frame has as many hands as the detector found: none, one, or those of several people, first all left
    ones, then all right ones. `draw_pose_select_v2` of the official code draws every one of them in this
    order, so the track keeps them all. Points of hands that a frame does not have are not finite.

    Raises:
        ConvertError: a file is missing or is no pose. The text names it.
    """
    paths = numbered_files(folder)
    hands, scores, params = [], [], []
    for path in paths:
        pose = read_pose(path)
        hands.append(_array(path, pose, "hands", (None, 21, 2)))
        scores.append(_array(path, pose, "hands_score", (len(hands[-1]), 21)))
        params.append(_array(path, pose, "draw_pose_params", (6,)))
    rectangles = np.array(params, np.int64)
    places = max(2, *map(len, hands))
    return {
        "hands": np.array([_padded(array, places, np.nan) for array in hands], np.float32),
        "hands_score": np.array([_padded(array, places, 0) for array in scores], np.float32),
        "fps": np.int64(fps),
        "style": np.array("official"),
        "draw_params": rectangles,
        "canvas": np.int64(max(768, rectangles.max())),
    }


def numbered_files(folder: Path) -> list[Path]:
    """The files 0.npy … N-1.npy of `folder` in the order of their numbers, which may have leading zeros.

    The official program counts from 0 and stops at the first number that is missing. A gap is refused here
    too: the frames after it would come too early.

    Raises:
        ConvertError: there is no such file, a number is missing, or two files have one number.
    """
    files: dict[int, Path] = {}
    for path in sorted(folder.glob("*.npy")):
        if not (path.stem.isascii() and path.stem.isdecimal()):
            continue
        other = files.setdefault(int(path.stem), path)
        if other is not path:
            raise ConvertError(f"{folder}: {other.name} and {path.name} have one number; remove one of them")
    if not files:
        raise ConvertError(f"{folder}: no files 0.npy, 1.npy, … there")
    ordered = [files[number] for number in sorted(files)]
    gap = next((i for i, path in enumerate(ordered) if int(path.stem) != i), None)
    if gap is not None:
        name = str(gap).zfill(len(ordered[gap].stem) if ordered[gap].stem.startswith("0") else 1)
        raise ConvertError(
            f"{folder}: {name}.npy is missing, and {ordered[gap].name} is there;"
            " number the files from 0 without gaps"
        )
    return ordered


def _padded(array: np.ndarray, length: int, value: float) -> np.ndarray:
    missing = np.full((length - len(array), *array.shape[1:]), value)
    return np.concatenate([array, missing])


def _array(path: Path, pose: dict[str, Any], key: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """The numbers under `key`, of this shape. None in the shape stands for any length."""
    if key not in pose:
        raise ConvertError(f"{path}: {key} is missing")
    array = np.asarray(pose[key])
    fits = array.ndim == len(shape) and all(
        wanted in (None, length) for wanted, length in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in "fiu":
        wanted = str(shape).replace("None", "any")
        raise ConvertError(
            f"{path}: {key} is {array.dtype} {array.shape}, it must be numbers of shape {wanted}"
        )
    return array


def main(argv: list[str] | None = None) -> int:
    """Convert a folder. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.convert_pose", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="folder with 0.npy, 1.npy, …")
    parser.add_argument("out", type=Path, help="pose track to write (.npz)")
    parser.add_argument("--fps", type=int, default=24, help="frames a second of the sequence (default 24)")
    args = parser.parse_args(argv)
    try:
        arrays = convert(args.folder, args.fps)
        np.savez_compressed(args.out, allow_pickle=False, **arrays)
    except ConvertError as error:
        print(f"convert_pose: {error}", file=sys.stderr)
        return 1
    except OSError as error:  # of the file that is written: those of the folder are ConvertErrors
        print(f"convert_pose: {args.out}: {error.strerror or error}", file=sys.stderr)
        return 1
    print(f"{args.out}: {len(arrays['hands'])} frames at {args.fps} fps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
