"""What the worker, its threads and an engine agree on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from protocol.wire.messages import Array16, Clip, InfoValue


class ClipError(Exception):
    """A clip can't be made; the text is the reason its session is told. `fatal` ends the session."""

    def __init__(self, reason: str, *, fatal: bool = False) -> None:
        super().__init__(reason)
        self.fatal = fatal


class DeviceLost(Exception):
    """The device answers nothing but errors from now on: only a new process can use it again."""


class Engine(Protocol):
    """Turns clips into latents. `prepare` runs in the prefetch thread, at the same time as `denoise`."""

    def load(self) -> None:
        """Loads and warms everything a first clip needs. In the compute thread.

        Raises SettingsError where a restart would not help.
        """

    def ready_for(self, fps: int) -> None:
        """Makes ready what clips at this rate need beyond that. In the compute thread, before they come."""

    def prepare(self, clip: Clip) -> Any:
        """Everything `denoise` needs that does not depend on the clip before. Raises ClipError."""

    def denoise(self, inputs: Any) -> Array16:
        """The clip's latents, float16 (frames, channels, h, w). Raises ClipError. In the compute thread."""

    def background(self) -> bool:
        """One small piece of work worth doing while there are no sessions; False if none is left.

        In the compute thread.
        """

    def close(self, session: str, epoch: int) -> None:
        """Forget the session up to and including this epoch. From any thread."""

    def sample_clip(self, session: str, seq: int, fps: int) -> Clip:
        """A clip like those of real sessions, to time."""

    @property
    def device_type(self) -> str:
        """cpu or cuda."""

    def info(self) -> dict[str, InfoValue]:
        """What the page and the other stages may know: model, size, avatars, poses, …"""

    def metrics(self) -> dict[str, float]:
        """The engine's own figures: caches, sessions held, memory."""


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """A clip at its end: its latents, or the error, or neither if its session is gone."""

    clip: Clip
    latents: Array16 | None
    error: Exception | None
