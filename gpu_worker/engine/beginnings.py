"""With `--late-start`, the latents that first clips of sessions start from: the beginning of another session.

A first clip follows none, so it would take all steps, twice as many as the clips after it. Where sessions
begin together, all others wait for those. So the first frame's latent of a session is kept for its avatar and
pose, since every session's first frame shows the same. Later sessions' first clips start from it as if it was
the clip before theirs. Their own sound moves the mouth in the steps that are left.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from protocol.model.own_avatars import OWN_ID
from protocol.wire.messages import Array16, Clip

#: Avatars and poses together. A latent takes 150 kB at 768².
MOST_KEPT = 64


class Beginnings:
    """The latents of first frames by avatar and pose. One thread uses it.

    Nothing is kept of warm-up and trials, whose sound is noise, nor of avatars that people bring.
    """

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], NDArray[np.float32]] = OrderedDict()

    def before(self, clip: Clip) -> NDArray[np.float32] | None:
        """The latent (C, h, w) that a session's first clip may follow, or None."""
        return self._kept.get(_key(clip)) if _is_first(clip) else None

    def keep(self, clip: Clip, latents: Array16) -> None:
        """Keeps the first frame of a session's first clip (F, C, h, w), unless there is one already."""
        key = _key(clip)
        if not _is_first(clip) or key in self._kept:
            return
        self._kept[key] = latents[0].astype(np.float32)
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)

    def forget(self) -> None:
        """The latents belong to other arithmetic than clips have from now on."""
        self._kept.clear()


def _key(clip: Clip) -> tuple[str, str]:
    return clip.avatar, clip.pose


def _is_first(clip: Clip) -> bool:
    is_inner = clip.session.startswith("_")
    return clip.seq == 0 and not is_inner and OWN_ID.fullmatch(clip.avatar) is None
