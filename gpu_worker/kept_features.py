"""Features of avatars and poses, and loops of silent clips, on disk: made once, read by the next starts.

They belong to the contents of the model's files, of the code, and of the picture or the pose. The files are
mapped, so features that no session asks for take no memory.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

import gpu_worker
from protocol.model.config import ModelConfig
from protocol.model.kept_folder import kept_folder, write_whole
from protocol.model.kept_record import content_key
from protocol.model.safe_arrays import arrays_as_bytes, map_arrays
from protocol.process.logs import first_line
from protocol.process.settings import Settings

logger = logging.getLogger(__name__)

R = TypeVar("R")
Arrays = Mapping[str, NDArray[Any]]

#: Bytes of all kept features together. The files that were not used for longest are removed.
MOST_BYTES = 512 * 2**20

#: Names of kept features: only such files are ever removed.
KEPT_NAME = re.compile(r"(reference|pose|loop)-[0-9a-f]{24}\.safetensors")


def model_files(config: ModelConfig) -> list[Path]:
    """The files that the GPU worker's networks are made of, and folders of them."""
    files = [config.denoising_unet_path, config.reference_unet_path, config.pose_encoder_path]
    if config.motion_module_path is not None:
        files.append(config.motion_module_path)
    shipped = config.path.parent / "openvino"
    return [*files, config.pretrained_vae_path, *([shipped] if shipped.is_dir() else [])]


def model_key(config: ModelConfig, *facts: object) -> str | None:
    """A digest of the GPU worker's networks, its code and `facts`. None where there is none to be had.

    Raises:
        ConfigError: the base UNet's configuration cannot be read.
    """
    here = Path(gpu_worker.__file__).parent
    numbers = (config.base_unet_config(), config.inference_config, config.steps, config.window_shift)
    code = [
        here / name
        for name in (
            *("denoiser", "avatars", "poses", "engine/openvino.py", "engine/session_state.py"),
            *("engine/cpu_denoiser.py", "engine/shipped_networks.py"),
        )
    ]
    return content_key(model_files(config), code, numbers, config.vae_class, *facts)


class FeatureFolder:
    """The kept features of one model in one arithmetic and size.

    Args:
        folder: holds them, beside those of other models.
        key: of the model, from `model_key`.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = key

    @classmethod
    def of(cls, settings: Settings, config: ModelConfig, dtype: object) -> FeatureFolder | None:
        """The features of a model in `dtype`, or None where none can be kept."""
        key = model_key(config, dtype, config.picture_size(settings))
        return None if key is None else cls(kept_folder(settings, "features"), key)

    def load(self, kind: str, source: bytes) -> Arrays | None:
        """The features of a source, mapped, or None where there are none that can be used."""
        file = self._file(kind, source)
        if not file.exists():
            return None
        try:
            arrays = map_arrays(file)
        except (OSError, ValueError) as error:  # the features are made anew
            logger.warning("%s cannot be used and is made anew: %s", file, first_line(error))
            return None
        with suppress(OSError):
            os.utime(file)
        return arrays

    def has(self, kind: str, source: bytes) -> bool:
        """Whether there are features of this source."""
        return self._file(kind, source).exists()

    def store(self, kind: str, source: bytes, arrays: Arrays) -> bool:
        """Keeps features. False, with a line in the log, where they cannot be written."""
        file = self._file(kind, source)
        try:
            write_whole(file, arrays_as_bytes(arrays))
            self._make_room(file)
        except OSError as error:
            logger.warning("features are not kept for the next start: %s", first_line(error))
            return False
        return True

    def _file(self, kind: str, source: bytes) -> Path:
        digest = hashlib.sha256(self._key.encode() + source).hexdigest()[:24]
        return self._folder / f"{kind}-{digest}.safetensors"

    def _make_room(self, newest: Path) -> None:
        kept = [path for path in self._folder.iterdir() if KEPT_NAME.fullmatch(path.name) and path != newest]
        sizes = {path: path.stat() for path in kept}
        total = newest.stat().st_size + sum(stat.st_size for stat in sizes.values())
        for path in sorted(kept, key=lambda path: sizes[path].st_mtime):
            if total <= MOST_BYTES:
                break
            path.unlink(missing_ok=True)
            total -= sizes[path].st_size


class KeptReferences(Generic[R]):
    """Reference features of pictures, for `AvatarStore`.

    Args:
        folder: holds them.
        pack: the features as arrays.
        unpack: the features from these arrays, or None where an array is missing.
    """

    def __init__(
        self, folder: FeatureFolder, pack: Callable[[R], Arrays], unpack: Callable[[Arrays], R | None]
    ) -> None:
        self._folder = folder
        self._pack = pack
        self._unpack = unpack

    def load(self, picture: NDArray[np.uint8]) -> R | None:
        """The features of a picture (height, width, 3), or None."""
        found = self._folder.load("reference", picture.tobytes())
        return None if found is None else self._unpack(found)

    def has(self, picture: NDArray[np.uint8]) -> bool:
        """Whether the features of this picture are kept."""
        return self._folder.has("reference", picture.tobytes())

    def store(self, picture: NDArray[np.uint8], made: R) -> bool:
        """Keeps the features of a picture. False where they cannot be written."""
        return self._folder.store("reference", picture.tobytes(), self._pack(made))


class KeptPoses:
    """Features of whole pose files, for `PoseStore`."""

    def __init__(self, folder: FeatureFolder) -> None:
        self._folder = folder

    def load(self, file: Path) -> NDArray[Any] | None:
        """The features (frames, c, h, w) of a pose file, or None."""
        try:
            found = self._folder.load("pose", file.read_bytes())
        except OSError:
            return None
        return None if found is None else found.get("features")

    def store(self, file: Path, features: NDArray[Any]) -> bool:
        """Keeps the features of all frames of a pose file. False where they cannot be written."""
        try:
            return self._folder.store("pose", file.read_bytes(), {"features": features})
        except OSError:
            return False
