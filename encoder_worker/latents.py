"""Checks of latents before they are decoded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from protocol.wire.phrases import phrase


class DecodeError(ValueError):
    """Latents that cannot become pictures. The text says why. `fatal`: the next ones will fail likewise."""

    def __init__(self, text: str, *, fatal: bool = False) -> None:
        super().__init__(text)
        self.fatal = fatal


def check_latents(latents: npt.NDArray[np.float16], channels: int) -> None:
    """Raises DecodeError for latents that are not (frames, channels, h, w) or not finite."""
    if latents.ndim != 4 or latents.shape[1] != channels:
        raise DecodeError(phrase("failed_latents", shape=latents.shape, channels=channels), fatal=True)
    if not np.isfinite(latents).all():
        raise DecodeError("latents are not finite (NaN or infinity)")
