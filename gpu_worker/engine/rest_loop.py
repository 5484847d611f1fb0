"""Latents of clips in which nobody speaks: each is denoised once, and given again to every session.

Such a clip is made of an avatar, of pose frames and of the tokens of digital silence. With the same noise
nothing else can change it, so a loop of the pose holds every clip that there is. `kept_loops` keeps them on
disk. docs/lab/idle.md has the figures.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence

from protocol.wire.messages import Array16, Clip

#: Bytes of latents kept. A pose of 12 s has 21 MB at 768² and 2.4 MB at 256².
MOST_BYTES = 128 * 2**20

#: Seconds after which a loop that nobody asks for is dropped. A rate or a length of clips that served for a
#: while leaves a loop of its own.
KEPT_SECONDS = 600.0

#: Avatar, pose, frames a second, and the numbers of the pose frames.
RestKey = tuple[str, str, int, tuple[int, ...]]

#: Avatar, pose, frames a second, and frames of a clip: these clips make a loop.
LoopName = tuple[str, str, int, int]


def rest_key(clip: Clip, pose_frames: Sequence[int]) -> RestKey:
    """The key of a silent clip, with the names of avatar and pose resolved."""
    return clip.avatar, clip.pose, clip.fps, tuple(pose_frames)


def loop_of(key: RestKey) -> LoopName:
    """The loop that a clip belongs to."""
    return *key[:3], len(key[3])


class RestLoops:
    """Latents by key. Beyond the budget those go that were not asked for for longest. Thread-safe.

    Args:
        budget: bytes of latents kept.
        clock: seconds.
    """

    #: Clips that were given again.
    hits: int
    #: Clips that were not there.
    misses: int
    #: Bytes of latents kept.
    bytes: int

    def __init__(self, budget: int = MOST_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget = budget
        self._clock = clock
        self._lock = threading.Lock()
        self._kept: OrderedDict[RestKey, Array16] = OrderedDict()
        #: Loops with clips that are not on disk.
        self._changed: set[LoopName] = set()
        #: When a clip of each loop was asked for last.
        self._used: dict[LoopName, float] = {}
        self.hits = self.misses = self.bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: RestKey) -> Array16 | None:
        """The latents (frames, c, h, w), which nobody may change, or None."""
        with self._lock:
            latents = self._kept.get(key)
            if latents is None:
                self.misses += 1
                return None
            self.hits += 1
            self._used[loop_of(key)] = self._clock()
            self._kept.move_to_end(key)
            return latents

    def store(self, key: RestKey, latents: Array16, *, kept: bool = False) -> None:
        """Keeps the latents of a silent clip. The first ones stay, so that a loop has no seam.

        Args:
            key: of the clip.
            latents: float16 (frames, c, h, w).
            kept: whether they come from the disk.
        """
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = latents
            self._used[loop_of(key)] = self._clock()
            self.bytes += latents.nbytes
            if not kept:
                self._changed.add(loop_of(key))
            while self.bytes > self._budget:
                self.bytes -= self._kept.popitem(last=False)[1].nbytes

    def take_changed(self) -> Iterator[LoopName]:
        """The loops with clips that are not on disk, each once."""
        while self._changed:
            with self._lock:
                name = self._changed.pop()
            yield name

    def clips_of(self, name: LoopName) -> list[tuple[RestKey, Array16]]:
        """The clips of a loop that are here."""
        with self._lock:
            return [(key, latents) for key, latents in self._kept.items() if loop_of(key) == name]

    def avatars(self) -> set[str]:
        """Whose clips are here."""
        with self._lock:
            return {key[0] for key in self._kept}

    def drop_unused(self) -> list[LoopName]:
        """Drops the loops that were not asked for lately. Returns their names."""
        oldest = self._clock() - KEPT_SECONDS
        with self._lock:
            unused = [name for name, used in self._used.items() if used < oldest]
            for name in unused:
                del self._used[name]
            self._drop(lambda key: loop_of(key) in unused)
            self._changed.difference_update(unused)
        return unused

    def _drop(self, unwanted: Callable[[RestKey], bool]) -> None:
        """The caller holds the lock."""
        for key in [key for key in self._kept if unwanted(key)]:
            self.bytes -= self._kept.pop(key).nbytes

    def forget(self, avatar: str) -> None:
        """Drops every clip of an avatar."""
        with self._lock:
            self._drop(lambda key: key[0] == avatar)
            self._used = {name: used for name, used in self._used.items() if name[0] != avatar}
            self._changed = {name for name in self._changed if name[0] != avatar}
