"""Which frame rate this machine holds: tried with real clips, through the encoders, before serving.

Denoising and decoding share the cores of a CPU, or one GPU, so neither one's own time says what the two
manage together. The trial therefore sends clips the way a session does and times how fast they come back
from the encoders. Where none answers, the denoiser's time alone has to do, against a smaller budget.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocol.wire.clock import FRAME_RATES, frames_of_clip

CLIPS = 5
OUTSTANDING = 3
"""One being decoded, one denoised, one prepared: what a session in full flow keeps in the worker."""

BEHIND = OUTSTANDING - 1
"""Clips that follow the timed ones, so that the last of those has as much beside it as the first. Without
them one core was timed at 0.33 s for clips that take it 0.5 s."""

HEADROOM = 0.8
"""Share of a clip's duration that making it may take, where there are cores enough; the rest is chance's.
At 0.9 two cores in float32 were given 24 fps at a share of 0.86, and 18 of 480 frames came late."""

REST = 0.3
"""Cores that Whisper, the gateway and the system take besides (measured: 0.14 in bfloat16). On one core that
decides: float32 was given 12 fps there at a share under 0.8, and 39 of 240 frames came late."""

LAST_HEADROOM = 0.9
"""The same at the lowest rate, below which there is nothing: more than this is too slow."""

ALONE = {"cpu": 0.5, "cuda": 0.7}
"""The same share for the denoiser alone, by device: decoding wants to live as well."""

HOPELESS = 2.0
"""Times a clip's duration that denoising alone may take before the rate is given up at once."""

SETTLE = 2.0
"""Seconds before a rate that failed is tried once more: the other stages start at the same time."""


@dataclass(frozen=True, slots=True)
class Pace:
    """`fps`: the rate sessions get; `clip_seconds`: what a clip of it took; `notice`: why it fell, or ""."""

    fps: int
    clip_seconds: float
    notice: str


def headroom(cores: int) -> float:
    """Share of a clip's duration that denoising and decoding it may take on `cores` cores."""
    return min(HEADROOM, 1.0 - REST / cores)


def given_pace(fps: int, clip_seconds: float, clip_frames: int) -> Pace:
    """The rate of `--fps`, kept whatever it costs; the notice says if even denoising can't follow."""
    lasts = frames_of_clip(fps, clip_frames) / fps
    notice = ""
    if clip_seconds > lasts:
        notice = (
            f"--fps {fps} is kept, but denoising a clip takes {clip_seconds:.2f} s and it lasts {lasts:.2f} s"
        )
    return Pace(fps, clip_seconds, notice)


class PaceTrial:
    """Tries the rates from high to low until one is held. No I/O: it is asked what to send and told the time.

    Args:
        clip_frames: of a clip at 24 fps.
        share: the part of a clip's duration that a clip may take: `headroom` or one of ALONE.
        what: what is timed, for the notice.
    """

    def __init__(self, clip_frames: int, share: float, what: str) -> None:
        self._clip_frames = clip_frames
        self._share = share
        self._what = what
        self._rate = 0
        self._again = True
        self._not_before = 0.0
        self._sent = 0
        self._back: list[float] = []
        self._missed: list[str] = []
        self.attempt = 0
        self.result: Pace | None = None

    @property
    def fps(self) -> int:
        """The rate on trial."""
        return FRAME_RATES[self._rate]

    @property
    def outstanding(self) -> int:
        """Clips of this attempt sent and not back."""
        return self._sent - len(self._back)

    def to_send(self, now: float) -> int:
        """How many clips at `fps` may be sent now."""
        if self.result is not None or now < self._not_before:
            return 0
        return min(OUTSTANDING - self.outstanding, CLIPS + BEHIND - self._sent)

    def sent(self, denoise_seconds: float, now: float) -> None:
        """One is on its way, after this long in the denoiser."""
        self._sent += 1
        lasts = frames_of_clip(self.fps, self._clip_frames) / self.fps
        if denoise_seconds > HOPELESS * lasts:
            self._again = False
            self._judge(denoise_seconds, now)

    def came_back(self, attempt: int, now: float) -> None:
        """One sent when `attempt` had this value is done; those of earlier attempts count no more."""
        if self.result is not None or attempt != self.attempt:
            return
        self._back.append(now)
        if len(self._back) == CLIPS + BEHIND:
            # The first one fills the pipeline; from then on one comes per clip time, while more follow.
            self._judge((self._back[CLIPS - 1] - self._back[0]) / (CLIPS - 1), now)

    def _judge(self, clip_seconds: float, now: float) -> None:
        lasts = frames_of_clip(self.fps, self._clip_frames) / self.fps
        share = max(self._share, LAST_HEADROOM) if self.fps == FRAME_RATES[-1] else self._share
        held = clip_seconds <= share * lasts
        self._sent, self._back = 0, []
        self.attempt += 1
        if held:
            self.result = Pace(self.fps, clip_seconds, self._notice(lasts, held))
        elif self._again:
            self._again, self._not_before = False, now + SETTLE
        else:
            self._missed.append(f"{clip_seconds:.2f} s at {self.fps} fps")
            if self.fps == FRAME_RATES[-1]:
                self.result = Pace(self.fps, clip_seconds, self._notice(lasts, held))
            else:
                self._rate += 1
                self._again = True

    def _notice(self, lasts: float, held: bool) -> str:
        if not self._missed:
            return ""
        took = f"{self._what} of {lasts:.2f} s takes {', '.join(self._missed)}"
        if held:
            return f"this machine holds {self.fps} frames per second: {took}"
        return f"this machine is too slow even for {self.fps} frames per second: {took}"
