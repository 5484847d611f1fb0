"""The silent clips of a model: given again from memory, read from disk, kept on disk, and forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gpu_worker.engine.kept_loops import KeptLoops, loop_source
from gpu_worker.engine.parts import LoadedModel
from gpu_worker.engine.rest_loop import RestKey, RestLoops, loop_of, rest_key
from gpu_worker.engine_api import ClipError
from protocol.wire.messages import Array16, Clip

#: Seconds between two looks for own avatars that were removed, and for loops that nobody asks for.
LOOK_EVERY = 2.0


class SilentClips:
    """Clips without a voice. `DenoiserEngine` says which thread calls which method.

    Args:
        model: with its avatars and poses, and the folder of what is kept for the next start.
        made_by: tells everything beside the model, the avatar and the pose that decides on a clip's latents,
            with a `repr` that says all of it.
        clock: seconds.
    """

    def __init__(
        self,
        model: LoadedModel[Any],
        made_by: Callable[[], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._avatars, self._poses = model.avatars, model.poses
        self._made_by = made_by
        self._clock = clock
        self._loops = RestLoops(clock=clock)
        self._kept = None if model.features is None else KeptLoops(model.features, self._loops)
        self._looked_at = clock()

    def get(self, clip: Clip) -> tuple[Clip, Array16] | None:
        """The clip with resolved names and its latents, or None where it has to be denoised."""
        try:
            clip = replace(
                clip, avatar=self._avatars.resolve(clip.avatar), pose=self._poses.resolve(clip.pose)
            )
        except ClipError:
            return None  # `prepare` says so to the session
        latents = self._loops.get(self._key(clip))
        return None if latents is None else (clip, latents)

    def store(self, clip: Clip, latents: Array16) -> None:
        """Keeps the latents of a clip with resolved names."""
        self._loops.store(self._key(clip), latents)

    def read(self, clip: Clip) -> Array16 | None:
        """The latents of a clip with resolved names that an earlier start made.

        The first clip of a loop reads all of it, so this is for the compute thread. The avatar's features are
        made by then.
        """
        name = loop_of(self._key(clip))
        picture = self._avatars.picture_digest(clip.avatar)
        if self._kept is None or picture is None or self._kept.asked(name):
            return None
        facts = (*name[2:], self._made_by())
        try:
            source = loop_source(picture, self._poses.file(clip.pose), clip.tokens, *facts)
        except OSError:  # the pose's file is gone, but what was read of it serves on
            return None
        self._kept.read(name, source)
        found = self.get(clip)
        return None if found is None else found[1]

    def keep_one(self) -> bool:
        """Writes one loop that has new clips. Returns False if there was none."""
        return self._kept is not None and self._kept.write_one()

    def forget_old(self) -> None:
        """Forgets loops of own avatars that were removed, and those that nobody asks for. Call it often."""
        now = self._clock()
        if now - self._looked_at > LOOK_EVERY:
            self._looked_at = now
            for avatar in filter(self._avatars.is_removed, self._loops.avatars()):
                self._loops.forget(avatar)
            for name in self._loops.drop_unused():
                if self._kept is not None:
                    self._kept.forget(name)

    def figures(self) -> dict[str, float]:
        """Clips that were given again, those that were not there, and the memory that all take."""
        return {
            "rest_clips_hits_total": float(self._loops.hits),
            "rest_clips_misses_total": float(self._loops.misses),
            "rest_clips_bytes": float(self._loops.bytes),
        }

    def _key(self, clip: Clip) -> RestKey:
        indices = self._poses.frame_indices(clip.pose, clip.pts, clip.fps, len(clip.tokens))
        return rest_key(clip, indices)
