"""Loops of silent clips on disk: one start denoises them, and the next ones read them.

A file holds one loop: the clips of one avatar, one gesture, one rate and one length. It belongs to the
contents of all that they are made of: model and code (`FeatureFolder`), the picture, the pose, the tokens of
silence and the noise. Avatars that people bring are never kept.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

from gpu_worker.engine.rest_loop import LoopName, RestLoops
from gpu_worker.kept_features import FeatureFolder
from protocol.wire.messages import Array16

logger = logging.getLogger(__name__)

#: The kind of these files, a part of their names.
KIND = "loop"


def loop_source(picture: str, pose: Path, tokens: Array16, *facts: object) -> bytes:
    """A digest of what a loop is made of beside the model.

    Args:
        picture: a digest of the avatar's picture.
        pose: the gesture's file.
        tokens: of a silent clip, which all have the same.
        facts: rate, length and noise, with a `repr` that says all of it.

    Raises:
        OSError: the pose cannot be read.
    """
    digest = hashlib.sha256(repr((picture, tokens.shape, facts)).encode())
    digest.update(pose.read_bytes())
    digest.update(tokens.tobytes())
    return digest.digest()


class KeptLoops:
    """Moves loops between the disk and `RestLoops`. Belongs to the compute thread.

    Args:
        folder: holds them, beside other features.
        loops: the clips in memory.
    """

    def __init__(self, folder: FeatureFolder, loops: RestLoops) -> None:
        self._folder = folder
        self._loops = loops
        #: The digest of each loop that was asked for.
        self._sources: dict[LoopName, bytes] = {}

    def asked(self, name: LoopName) -> bool:
        """Whether the loop was read before, or was not there."""
        return name in self._sources

    def read(self, name: LoopName, source: bytes) -> None:
        """Takes a loop from the disk, as much of it as there is.

        Args:
            name: of the loop.
            source: its `loop_source`.
        """
        self._sources[name] = source
        clips = self._folder.load(KIND, source) or {}
        for frames, latents in clips.items():
            indices = tuple(int(number) for number in frames.split(","))
            self._loops.store((*name[:3], indices), latents, kept=True)
        if clips:
            logger.info("loop of avatar %s and pose %s: %d clips are kept", *name[:2], len(clips))

    def forget(self, name: LoopName) -> None:
        """The loop is no longer in memory, so it is to be read again when it is asked for. Any thread."""
        self._sources.pop(name, None)

    def write_one(self) -> bool:
        """Keeps one loop that has new clips. Returns False if there was none."""
        for name in self._loops.take_changed():
            source = self._sources.get(name)
            if source is None:  # nothing is kept of somebody's own avatar
                continue
            clips = {",".join(map(str, key[3])): latents for key, latents in self._loops.clips_of(name)}
            # Another worker may have kept other clips. Those that are there stay.
            kept = dict(self._folder.load(KIND, source) or {})
            self._folder.store(KIND, source, clips | kept)
            return True
        return False
