"""The contract between the worker, its threads and an engine.

A clip's way through the GPU worker, by the names of the calls:

    GpuWorker.on_job → Prefetch.enqueue → Engine.prepare → Engine.denoise → GpuWorker.on_output → dispatch
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gpu_worker.quality.options import Quality
from protocol.process.settings import Settings
from protocol.wire.messages import Array16, Clip, InfoValue


class ClipError(Exception):
    """A clip cannot be made.

    Args:
        reason: the text that its session is told.
        fatal: whether the session ends with it.
    """

    def __init__(self, reason: str, *, fatal: bool = False) -> None:
        super().__init__(reason)
        self.fatal = fatal


class LatentsNotFiniteError(ClipError):
    """The denoiser's latents hold NaN or infinity."""


class DeviceLost(Exception):
    """The device answers every call with an error from now on. Only a new process can use it again."""


class Engine(Protocol):
    """Turns clips into latents.

    `prepare` runs in the prefetch thread, at the same time as `denoise` in the compute thread.
    """

    @property
    def device_type(self) -> str:
        """The kind of device that denoises: "cpu" or "cuda"."""

    @property
    def clip_lengths(self) -> Sequence[int]:
        """Frames of a clip at 24 fps, from the fewest on, of which the trial takes the first that is held."""

    @property
    def spare_length(self) -> int | None:
        """The same for a machine with time to spare, tried once the first of these is held. None: none is."""

    @property
    def heads(self) -> Sequence[bool]:
        """Heads of the VAE that may draw, the preferred one first (`ModelConfig.heads`)."""

    #: Frames of a clip at 24 fps, of the clips that `trial_clip` makes and `make_ready_for` means.
    clip_frames: int

    def load(self) -> None:
        """Loads and warms everything that a first clip needs. Called in the compute thread.

        Raises:
            SettingsError: the settings cannot work, so a restart would not help.
        """

    def open_qualities(self) -> Sequence[Quality]:
        """What --quality auto may pick, the best first. Nothing where there is nothing to pick."""

    @property
    def steps(self) -> int:
        """Steps of the sampler."""

    @property
    def latent_size(self) -> tuple[int, int, int]:
        """Channels, height and width of latents, from `load` on."""

    def adopt(self, settings: Settings) -> None:
        """Serves by these settings from now on. Called in the compute thread, before any session.

        Tier, late start, the length of clips and the rate may differ from those before.
        """

    def make_ready_for(self, fps: int) -> None:
        """Does the rest for clips at this rate, such as compiling, before the first of them comes.

        Called in the compute thread.
        """

    def favour(self, fps: int) -> None:
        """Makes clips of this rate the ones that are made soonest, since most will be such.

        Called in the compute thread.
        """

    def ready_for(self, fps: int) -> bool:
        """Whether clips of this rate are made by the fastest way that serves here. From any thread."""

    def prepare(self, clip: Clip) -> Any:
        """The clip's inputs for `denoise`: everything that does not depend on the clip before.

        Raises:
            ClipError: the clip asks for something that this engine does not have or cannot take.
        """

    def prepare_ahead(self, clip: Clip) -> bool:
        """Does one small piece of what the clip after this one will need. False: there is none left.

        Called in the prefetch thread, while no clip waits for `prepare`.
        """

    def denoise(self, inputs: Any) -> Array16:
        """The clip's scaled latents, float16 (frames, channels, h, w). Called in the compute thread.

        Raises:
            ClipError: this clip cannot be made.
            DeviceLost: no clip can be made any more.
        """

    def reached(self, clip: Clip, seq: int) -> None:
        """The clip that was denoised last holds the frames of all clips up to `seq`, which the next follows.

        Called in the compute thread.
        """

    def rest(self, clip: Clip) -> Array16 | None:
        """Latents of a silent clip without computing, or None where it has to be denoised.

        Called in the loop's thread.
        """

    def check(self) -> None:
        """Called in the loop's thread, every 100 ms at least, also while another call waits for the device.

        Raises:
            DeviceLost: no clip can be made any more.
        """

    def work_in_pause(self) -> bool:
        """Does one small piece of work worth doing while nobody speaks. False: there is none left.

        Called in the compute thread.
        """

    def close(self, session: str, epoch: int) -> None:
        """Forgets the session up to and including this epoch. May be called from any thread."""

    def trial_clip(self, session: str, seq: int, fps: int) -> Clip:
        """A clip like those of real sessions, for the rate trial and for warming up."""

    def info(self) -> dict[str, InfoValue]:
        """Facts for the page and the other stages: model, size, avatars, poses and the like."""

    def metrics(self) -> dict[str, float]:
        """The engine's own figures: caches, sessions held, memory."""


@dataclass(frozen=True, slots=True, eq=False)
class ClipOutcome:
    """How a clip ended.

    Attributes:
        clip: the clip.
        latents: float16 (frames, channels, h, w), or None where there are none.
        error: why there are none. It is None too where the clip's session is gone.
    """

    clip: Clip
    latents: Array16 | None
    error: Exception | None
