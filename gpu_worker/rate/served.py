"""The rate and the size that sessions are served with: the trial's at first, then the governor's."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace

from gpu_worker.rate.capacity import Capacity
from gpu_worker.rate.governor import SERVED_RATES, RateGovernor
from gpu_worker.rate.grades import FINE_COSTS, Grade
from gpu_worker.rate.joining import follows, most_joined
from gpu_worker.rate.service import ServiceLog
from gpu_worker.rate.thinning import thin_clip, thinned_frames
from gpu_worker.rate.trial import RateChoice
from protocol.process.settings import Settings
from protocol.wire.clock import FRAME_RATES, FULL_RATE, frames_of_clip
from protocol.wire.messages import Clip, ClipKey, InfoValue, Latents, clip_key
from protocol.wire.phrases import phrase

logger = logging.getLogger(__name__)

#: Clips in service whose times change the number of sessions.
CLIPS_THAT_TELL = 12

#: Seconds between two looks from which on this process was kept from running.
STOOD_STILL = 0.5


class ServedRate:
    """All of a worker's methods belong to the loop's thread.

    Args:
        settings: of this worker. With --fps, and where nothing is computed, the rate stays.
        ready: whether a rate's clips can be made as fast as the machine can.
        heads: of the VAE that may draw, from `ModelConfig.heads`. Known once the engine has loaded.
    """

    #: The trial's result.
    choice: RateChoice
    #: The lowest rate that is acceptable, by which sessions are counted.
    lowest: int

    def __init__(
        self, settings: Settings, ready: Callable[[int], bool], heads: Callable[[], Sequence[bool]]
    ) -> None:
        self._log = ServiceLog()
        self._governor = RateGovernor(self._log, ready=ready, cores=len(os.sched_getaffinity(0)))
        self._heads = heads
        self._device_type = "cpu"
        #: 0 before anything was timed.
        self._sessions = 0
        self._notice = ""
        self._looked_at: float | None = None
        self.adopt(settings, None)

    def adopt(self, settings: Settings, held: int | None) -> None:
        """Serve by these settings.

        Args:
            settings: of this worker.
            held: the rate by which sessions are counted, or None for the lowest.
        """
        self._full = settings.fps or FULL_RATE
        self.choice = RateChoice(self._full, 0.0, "", settings.frames_a_clip)
        self._follows = settings.fps is None and not settings.passthrough
        self.lowest = settings.fps or held or FRAME_RATES[-1]
        self._capacity = Capacity(settings.frames_a_clip, self.lowest)

    @property
    def fps(self) -> int:
        """Frames a second of the next clips of sessions that ask for as many."""
        return self._governor.fps if self._follows else self._full

    @property
    def shown_fps(self) -> int:
        """Frames a second that new sessions show. Not each part of a short clip can be left."""
        frames = self.choice.clip_frames
        left = thinned_frames(frames, FULL_RATE, self.fps) if self._follows else 0
        return left * FULL_RATE // frames or self.fps

    @property
    def fine(self) -> bool:
        """Whether the VAE's finer head draws the next clips."""
        return self._governor.grade.fine if self._sizes else self.choice.fine

    @property
    def _sizes(self) -> bool:
        """Whether pictures may have either size."""
        return self._follows and len(self._heads()) > 1

    @property
    def fell(self) -> bool:
        """Whether the machine is thought not to hold the full rate, or not the larger pictures."""
        return self._follows and (self.fps < self._full or self.fine < self._heads()[0])

    def is_better(self, choice: RateChoice) -> bool:
        """Whether a trial has found a higher rate, or as high a one with shorter clips or finer pictures."""
        now = self.fps, -self.choice.clip_frames, self.fine
        return (choice.fps, -choice.clip_frames, choice.fine) > now

    def serve(self, choice: RateChoice, device_type: str) -> None:
        """Take the rate and length that a trial has found on a device, "cpu" or "cuda"."""
        if choice.clip_frames != self.choice.clip_frames:
            self._capacity = Capacity(choice.clip_frames, self.lowest)
        self.choice, self._notice = choice, choice.notice
        self._device_type = device_type
        self._governor.start_at(
            choice.fps, device_type, choice.clip_frames, fine=choice.fine, sizes=self._sizes
        )
        self._sessions = self._capacity.sessions(self._plain_choice, device_type)

    def rates_to_ready(self, device_type: str) -> Sequence[int]:
        """The rates to make ready before sessions come, so that the machine can fall to each of them.

        On a GPU that compiles, each takes seconds and memory, so the lower ones wait for a pause.
        """
        return FRAME_RATES if self._follows and device_type == "cpu" else (self._full,)

    def rates_to_fall_to(self, device_type: str) -> Sequence[int]:
        """The lower rates to make ready in the first pauses, where that takes seconds and memory."""
        return (
            [fps for fps in FRAME_RATES if fps < self.fps] if self._follows and device_type == "cuda" else ()
        )

    @property
    def rate_for_need(self) -> int | None:
        """A rate to make ready in a pause, on a machine that holds only the lowest usual one."""
        return SERVED_RATES[-1] if self._follows and self.fps <= FRAME_RATES[-1] else None

    def take_lowest(self, timed: RateChoice) -> None:
        """Take the time of clips at the lowest rate."""
        self._capacity.lowest_seconds = timed.clip_seconds
        self._governor.fixed_share = self._capacity.fixed_share(self._plain_choice) or None

    @property
    def _plain_choice(self) -> RateChoice:
        """The trial's result as if with usual pictures, which sessions get where many of them speak."""
        if not (self._sizes and self.choice.fine):
            return self.choice
        return replace(self.choice, clip_seconds=self.choice.clip_seconds / FINE_COSTS)

    def info(self) -> dict[str, InfoValue]:
        """The rate now, the highest one, the reason for the difference, and the number of sessions.

        `clip_frames` are the frames of new sessions' clips at 24 fps.
        """
        facts: dict[str, InfoValue] = {
            "fps": self.shown_fps,
            "full_fps": self._full,
            "clip_frames": self.choice.clip_frames,
            "notice": self._notice,
        }
        return facts | ({"sessions": self._sessions} if self._sessions else {})

    def figures(self) -> dict[str, float]:
        """The gauges: seconds that a clip with all its frames takes, on trial and lately, and the size."""
        cost = self._governor.cost_of(CLIPS_THAT_TELL)
        return {
            "trial_clip_seconds": self.choice.clip_seconds,
            "clip_cost_seconds": cost,
            "fine_pictures": float(self.fine),
        }

    def count_sessions(self, now: float) -> bool:
        """Count anew how many sessions the machine serves. Returns whether the number has changed."""
        if not self._sessions:
            return False
        governor, in_service = self._governor, 0.0
        if self._log.speaking(now) and len(self._log.times) >= CLIPS_THAT_TELL:
            frames = frames_of_clip(self.lowest, self.choice.clip_frames)
            plain = Grade(governor.fps).cost(governor.grade)
            in_service = plain * governor.cost_of(CLIPS_THAT_TELL) * governor.weight(frames)
        before = self._sessions
        self._sessions = self._capacity.sessions(self._plain_choice, self._device_type, in_service)
        return self._sessions != before

    # ------------------------------------------------------------------ a clip's way

    def take_clip(self, clip: Clip, now: float) -> None:
        """A clip of a session has come."""
        self._log.arrived(clip_key(clip), len(clip.tokens), clip.fps, now)

    def may_join(self, clips: Sequence[Clip], clip: Clip) -> bool:
        """Whether a clip that waits may be made together with those of its session before it."""
        most = most_joined(len(clip.tokens), clip.fps, self.fps) if self._follows else 1
        return len(clips) < most and follows(clips[-1], clip)

    def fit(self, clips: Sequence[Clip]) -> list[Clip]:
        """Clips that leave the queue to be made together, each with as many frames as the rate has now."""
        fitting = [self.thin(clip) for clip in clips]
        self._log.begun([clip_key(clip) for clip in clips], sum(len(clip.tokens) for clip in fitting))
        return fitting

    def thin(self, clip: Clip) -> Clip:
        """The clip with as many frames as the rate has now."""
        return thin_clip(clip, self.fps) if self._follows else clip

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
        if encoders == 0 or gap > STOOD_STILL:
            self._log.stand_still(gap)
        self._log.keep_only(in_hand)
        before = self._governor.grade
        if encoders == 0 or not self._follows or not self._governor.update(now):
            return False
        grade = self._governor.grade
        self._notice = "" if grade.fps == self._full else phrase("rate_busy", fps=self.shown_fps)
        logger.log(
            logging.WARNING if grade.fps < before.fps else logging.INFO,
            "sessions get %s instead of %s: clips take the machine %.2f s, and the latest is %.2f s late",
            grade,
            before,
            self._governor.cost,
            self._governor.late,
        )
        return True
