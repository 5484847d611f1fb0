"""Coded pictures of silent clips on disk: one encoder makes them, and others and the next starts read them.

On a CPU the GPU worker keeps the latents of its loops between starts (`gpu_worker/engine/kept_loops.py`), so
the same latents come again. A file holds one clip. It belongs to the contents of its latents, the VAE, the
code and the settings that pictures depend on. Somebody's own avatar is never kept here.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgpack

import encoder_worker
from encoder_worker.kept_clips import Coded, PicturesKey, coded_bytes, noted
from encoder_worker.video import CodedPicture
from protocol.model.config import ModelConfig
from protocol.model.hardware.drivers import only_a_cpu
from protocol.model.kept_folder import kept_folder, write_whole
from protocol.model.kept_record import content_key
from protocol.model.vae_folder import VaeFolder
from protocol.process.logs import first_line
from protocol.process.settings import Settings

logger = logging.getLogger(__name__)

#: Bytes of all files together. A loop of 12 s has 3 MB as JPEG at 256².
MOST_BYTES = 128 * 2**20
#: Share of `MOST_BYTES` that stays when files are removed, so that not every new clip has to make room.
STAYS = 0.75
#: Bytes of a file above which it is none of these.
MOST_FILE_BYTES = 32 * 2**20
#: Names of kept clips: only such files are ever removed.
KEPT_NAME = re.compile(r"clip-[0-9a-f]{32}\.pictures")


class KeptPictures:
    """The kept pictures of one model under some settings. Belongs to the compute thread.

    Args:
        folder: holds them, beside those of other models.
        key: of everything that pictures depend on beside a clip's latents, codec, rate and decoder.
        most_bytes: of all files together.
    """

    #: Clips that were read.
    hits: int

    def __init__(self, folder: Path, key: str, most_bytes: int = MOST_BYTES) -> None:
        self._folder = folder
        self._key = key
        self._most_bytes = most_bytes
        #: Bytes in the folder, as far as this process knows. None before its first file.
        self._size: int | None = None
        self._writes = True
        self.hits = 0

    @classmethod
    def of(
        cls, settings: Settings, config: ModelConfig, vae: VaeFolder, coded_by: object
    ) -> KeptPictures | None:
        """The kept pictures of a model, or None on a GPU: no loop's latents are kept there.

        Args:
            settings: of this worker.
            config: the model.
            vae: the VAE that decodes.
            coded_by: the codecs and their numbers, with a `repr` that says all of it.
        """
        devices = ["cpu"] if set(settings.gpu_devices) == {"cpu"} else settings.encoder_devices
        if not only_a_cpu(devices):
            return None
        code = Path(encoder_worker.__file__).parent
        numbers = (config.picture_size(settings), settings.dtype, settings.cpu_engine, settings.decoder)
        key = content_key([vae.path], [code], vae.config, numbers, coded_by)
        return None if key is None else cls(kept_folder(settings, "pictures"), key)

    def through(self, key: PicturesKey, make: Callable[[], Iterator[Coded]], codec: str) -> Iterator[Coded]:
        """The coded pictures under a key, a few at a time: kept ones, or those that `make` gives.

        Args:
            key: as of `KeptClips.through`.
            make: codes the clip. It is kept once all of it was taken.
            codec: that was asked for. Pictures in another one, as after an encoder's failure, are not kept.
        """
        file = self._file(key)
        if (kept := self._load(file)) is not None:
            self.hits += 1
            yield from kept
            return
        made: list[Coded] = []
        yield from noted(make(), made)
        if all(picture.codec == codec for _, pictures in made for picture in pictures):
            self._store(file, made)

    def _file(self, key: PicturesKey) -> Path:
        digest = hashlib.sha256(repr((self._key, key)).encode()).hexdigest()[:32]
        return self._folder / f"clip-{digest}.pictures"

    def _load(self, file: Path) -> list[Coded] | None:
        try:
            if file.stat().st_size > MOST_FILE_BYTES:
                return None
            parts = _unpacked(file.read_bytes())
        except OSError:
            return None
        except (ValueError, TypeError, msgpack.UnpackException) as error:  # the clip is made anew
            logger.warning("%s cannot be used and is made anew: %s", file, first_line(error))
            return None
        with suppress(OSError):
            os.utime(file)  # those that were not used for longest make room first
        return parts

    def _store(self, file: Path, parts: list[Coded]) -> None:
        if not self._writes:
            return
        try:
            write_whole(file, _packed(parts))
            if self._size is None:
                self._size = sum(path.stat().st_size for path in self._files())
            else:
                self._size += coded_bytes(parts)
            if self._size > self._most_bytes:
                self._make_room(file)
        except OSError as error:
            self._writes = False
            logger.warning("pictures are not kept for the next start: %s", first_line(error))

    def _files(self) -> list[Path]:
        return [path for path in self._folder.iterdir() if KEPT_NAME.fullmatch(path.name)]

    def _make_room(self, newest: Path) -> None:
        stats = {path: path.stat() for path in self._files()}
        self._size = sum(stat.st_size for stat in stats.values())
        for path in sorted(stats.keys() - {newest}, key=lambda path: stats[path].st_mtime_ns):
            if self._size <= STAYS * self._most_bytes:
                break
            path.unlink(missing_ok=True)
            self._size -= stats[path].st_size


def _packed(parts: list[Coded]) -> bytes:
    packed: bytes = msgpack.packb(
        [[*size, [[one.data, one.codec, one.key] for one in pictures]] for size, pictures in parts]
    )
    return packed


def _unpacked(content: bytes) -> list[Coded]:
    """The parts of a file's clip.

    Raises:
        ValueError, TypeError, msgpack.UnpackException: the file is damaged.
    """
    parts = [
        ((height, width), [CodedPicture(data, codec, key) for data, codec, key in pictures])
        for height, width, pictures in msgpack.unpackb(content)
    ]
    if not parts or not all(_is_part(*part) for part in parts):
        raise ValueError("it holds no clip")
    return parts


def _is_part(size: tuple[Any, Any], pictures: list[CodedPicture]) -> bool:
    kinds = ((one.data, bytes) for one in pictures), ((one.codec, str) for one in pictures)
    sides = all(type(side) is int and side > 0 for side in size)
    return sides and all(isinstance(value, kind) for each in kinds for value, kind in each)
