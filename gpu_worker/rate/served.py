"""The rate that sessions are served with: the trial's at first, then the governor's."""

from __future__ import annotations

import logging
from collections.abc import Callable

from gpu_worker.rate.governor import RateGovernor
from gpu_worker.rate.service import ServiceLog
from gpu_worker.rate.thinning import thin_clip
from gpu_worker.rate.trial import RateChoice
from protocol.process.settings import Settings
from protocol.wire.clock import FULL_RATE
from protocol.wire.messages import Clip, ClipKey, InfoValue, Latents, clip_key

logger = logging.getLogger(__name__)

#: Seconds between two looks from which on this process was kept from running.
STOOD_STILL = 0.5


class ServedRate:
    """All of a worker's methods belong to the loop's thread.

    Args:
        settings: of this worker. With --fps, and where nothing is computed, the rate stays.
    """

    #: The trial's result.
    choice: RateChoice

    def __init__(self, settings: Settings) -> None:
        self._full = settings.fps or FULL_RATE
        self.choice = RateChoice(self._full, 0.0, "")
        self._follows = settings.fps is None and not settings.passthrough
        self._log = ServiceLog()
        self._governor = RateGovernor(self._log)
        self._notice = ""
        self._looked_at: float | None = None

    @property
    def fps(self) -> int:
        """Frames a second of the next clips of sessions that ask for as many."""
        return self._governor.fps if self._follows else self._full

    @property
    def fell(self) -> bool:
        """Whether the machine is thought not to hold the full rate."""
        return self._follows and self.fps < self._full

    def serve(self, choice: RateChoice, device_type: str) -> None:
        """Take the rate that a trial has found on a device, "cpu" or "cuda"."""
        self.choice, self._notice = choice, choice.notice
        self._governor.start_at(choice.fps, device_type)

    def info(self) -> dict[str, InfoValue]:
        """The rate now, the highest one, and the reason for the difference."""
        return {"fps": self.fps, "full_fps": self._full, "notice": self._notice}

    # ------------------------------------------------------------------ a clip's way

    def take_clip(self, clip: Clip, now: float) -> None:
        """A clip of a session has come."""
        self._log.arrived(clip_key(clip), len(clip.tokens), clip.fps, now)

    def fit(self, clip: Clip) -> Clip:
        """The clip with as many frames as are to be made of it, when it leaves the queue."""
        if not self._follows:
            return clip
        fitting = thin_clip(clip, self.fps)
        self._log.begun(clip_key(clip), len(fitting.tokens))
        return fitting

    def confirm(self, latents: Latents, now: float) -> None:
        """An encoder has confirmed the clip."""
        self._log.done(clip_key(latents), now)

    def update(self, now: float, in_hand: Callable[[ClipKey], bool], encoders: int) -> bool:
        """Follow the machine. Call it at least every 100 ms.

        Args:
            now: the time.
            in_hand: whether a clip is still to be made.
            encoders: number of encoders. Without any, clips are late for another reason than the rate.

        Returns:
            Whether `info` has changed.
        """
        gap = 0.0 if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        if not self._follows:
            return False
        if encoders == 0 or gap > STOOD_STILL:
            self._log.stand_still(gap)
        self._log.keep_only(in_hand)
        before = self._governor.fps
        if encoders == 0 or not self._governor.update(now):
            return False
        fps = self._governor.fps
        self._notice = "" if fps == self._full else f"This machine is busy: {fps} frames a second are shown."
        logger.log(
            logging.WARNING if fps < before else logging.INFO,
            "sessions get %d fps instead of %d: clips take the machine %.2f s, and the latest is %.2f s late",
            fps,
            before,
            self._governor.cost,
            self._governor.late,
        )
        return True
