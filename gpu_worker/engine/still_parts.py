"""Keeps still parts of the pictures still, within a clip and from a clip to the next.

Where a clip starts from zeros (`--session-state zero-noise`), its latents have no noise, and what changes in
background and clothes is small: what the motion modules make of a frame's place in its clip. This filter
holds small changes back and lets large ones pass. It is the temporal recursive filter of video noise
reduction, whose gain rises with the change (Dubois and Sabri 1984, IEEE Transactions on Communications
32(7)), on latents in place of pixels. docs/lab/continuity.md has the figures.

It runs on the host, behind the device. So torch, OpenVINO and the GPU's fast path have the same filter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocol.wire.messages import Array16

#: Changes of latents that are halved, as the root mean square of a place's channels. Latents have a deviation
#: of about 1. The first frames of a clip are held to the clip before, by values that fall to the usual one.
HELD = 0.03
FIRST_HELD = (0.1, 0.05)


def stilled(latents: Array16, before: NDArray[np.float32] | None) -> Array16:
    """The clip's latents (F, C, h, w) with small changes held back. The given ones stay as they are.

    Args:
        latents: scaled latents of a clip.
        before: the last latent (C, h, w) of the clip before, as this function made it, or None. One of
            another size counts as none.
    """
    made = latents.astype(np.float32)
    held = (*FIRST_HELD, *[HELD] * len(made))
    last = made[0] if before is None or before.shape != made.shape[1:] else before
    for frame, change_held in zip(made, held, strict=False):
        change = frame - last
        power = np.square(change).mean(0)
        frame[:] = last + change * (power / (power + change_held**2))
        last = frame
    return made.astype(np.float16)
