"""The networks that denoise by OpenVINO, whether a model ships them or torch's are traced."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


class DenoiserGraph(Protocol):
    """Predicts v of one sampling step."""

    @property
    def file(self) -> Path:
        """Where the network is kept."""

    def release_file(self) -> None:
        """Lets the pages of the kept file go. They are read again when they are needed."""

    def __call__(self, *inputs: NDArray[Any]) -> Floats:
        """The prediction (F, C, h, w). The next call writes over it.

        Args:
            inputs: latents (F, C, h, w), time (1, time width), tokens (F, T, 384), pose (F, c0, h, w), order
                (F,) int64 and reference (N,). All but the order are float32.
        """


class CpuNetworks(Protocol):
    """A model's networks. Each is made when it is first asked for."""

    @property
    def dtype(self) -> str:
        """The arithmetic: float32 or bfloat16."""

    def times(self, timesteps: Sequence[int]) -> list[Floats]:
        """The embedding of each timestep after SiLU, (1, time width)."""

    def denoiser(self, frames: int, h: int, w: int, tokens: int, *, any_length: bool) -> DenoiserGraph:
        """The denoiser for clips of one shape, or of all lengths up to the greatest.

        Args:
            frames: of a clip.
            h: height of the latents.
            w: width of the latents.
            tokens: audio tokens of a frame.
            any_length: whether a clip may have any number of frames.

        Raises:
            Exception: whatever fails in OpenVINO.
        """

    def reference(self, picture: NDArray[np.uint8]) -> Floats:
        """An avatar's keys and values, block after block, (N,), of its picture (height, width, 3)."""

    def pose(self, maps: Floats) -> Floats:
        """Features (n, c0, h, w) of pose maps (n, 3, H, W) in 0..1. Each map's depend on it alone."""

    def put_aside(self) -> None:
        """Lets the networks go that only new avatars and poses need, for their memory."""
