"""The rate trial: the highest frame rate at which this machine makes clips in time.

Denoising and decoding share the cores of a CPU, or one GPU, so neither one's own time says what the two
manage together. The trial therefore sends clips the way a session does, and times how fast they come back
from the encoders. Where no encoder answers, it times the denoiser alone, against a smaller share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from gpu_worker.rate.clip_length import DEFAULT_LENGTHS, SPARE_SHARE, Pace, next_after, paces
from protocol.wire.clock import FRAME_RATES, USUAL_CLIP_FRAMES, frames_of_clip
from protocol.wire.phrases import phrase

#: Clips timed at each rate.
TIMED_CLIPS = 5

#: Clips sent and not back: one is decoded, one denoised, one prepared. A session in full flow keeps as many.
CLIPS_IN_FLIGHT = 3

#: Clips that follow the timed ones, so that the last timed clip has as much beside it as the first. Without
#: them one core was timed at 0.33 s for clips that take it 0.5 s.
FOLLOWING_CLIPS = CLIPS_IN_FLIGHT - 1

#: Most of a clip's duration that making it may take, where there are cores enough. The rest is for chance: at
#: 0.9, two cores in float32 were given 24 fps at a share of 0.86, and 18 of 480 frames came late.
MAX_SHARE = 0.8

#: Cores that Whisper, the gateway and the system take besides, and a margin for chance. On one core they
#: decide. At 0.3, one core with AVX2 was given 24 fps: all stages took it more than 0.9 s a second, 35 of 432
#: frames came late, and the rate then fell to 12.
OTHER_CORES = 0.45

#: Most of a clip's duration at the lowest rate. There is no lower one to fall to, so more is too slow.
MAX_SHARE_AT_LOWEST = 0.9

#: Most of a clip's duration that denoising alone may take, by type of device. Decoding takes the rest.
MAX_SHARE_DENOISING = {"cpu": 0.5, "cuda": 0.7}

#: Times a clip's duration that denoising may take before a rate is given up at its first clip.
GIVE_UP_FACTOR = 2.0

#: Seconds before a rate that failed is tried once more: the other stages start at the same time.
RETRY_DELAY = 2.0


@dataclass(frozen=True, slots=True)
class RateChoice:
    """The frame rate of new sessions.

    Attributes:
        fps: frames per second.
        clip_seconds: seconds that a clip of this rate took.
        notice: why it is not the highest, for the user, or "" if it is.
        clip_frames: frames of a clip at 24 fps.
        fine: whether the VAE's finer head draws, pictures of twice the side.
    """

    fps: int
    clip_seconds: float
    notice: str
    clip_frames: int = USUAL_CLIP_FRAMES
    fine: bool = False


def max_share(cores: int) -> float:
    """Most of a clip's duration that denoising and decoding it may take on `cores` cores."""
    return min(MAX_SHARE, 1.0 - OTHER_CORES / cores)


def choose_given_rate(fps: int, clip_seconds: float, clip_frames: int, *, fine: bool = False) -> RateChoice:
    """The rate that --fps names, kept at any cost. The notice says so if even denoising is too slow for it.

    Args:
        fps: of --fps.
        clip_seconds: seconds that denoising a clip takes.
        clip_frames: frames of a clip at 24 fps.
        fine: whether the VAE's finer head draws.
    """
    lasts = frames_of_clip(fps, clip_frames) / fps
    notice = ""
    if clip_seconds > lasts:
        notice = phrase("rate_kept", fps=fps, takes=f"{clip_seconds:.2f}", lasts=f"{lasts:.2f}")
    return RateChoice(fps, clip_seconds, notice, clip_frames, fine)


class RateTrial:
    """Tries the rates from high to low until one is held. Does no I/O and reads no clock.

    The highest rate is tried with each length of clips and size of pictures, the best first (`clip_length`).
    Larger pictures are held where a clip with nothing before it also comes back within the share of its
    duration. Denoising and decoding of clips in a row overlap, so their rate alone would hide late answers.
    Where the best of these is held with time to spare, a shorter length is tried as well.

    Its owner asks `clips_to_send`, sends clips, and reports each with `clip_sent` and `clip_returned`, until
    `result` is there. A rate that fails at its cheapest gets a second attempt after `RETRY_DELAY`.

    Args:
        lengths: frames of a clip at 24 fps, from the shortest to the longest.
        share: most of a clip's duration that a clip may take, from `max_share` or `MAX_SHARE_DENOISING`.
        timed: the activity that is timed, for the notice.
        rates: to try, from high to low.
        heads: of the VAE that may draw, from `ModelConfig.heads`.
        spare: frames of a clip for a machine with time to spare, from `spare_length`, or None.
    """

    #: Number of the attempt in progress, from 0 over all rates.
    attempt: int
    #: The rate to serve, once the trial is over.
    result: RateChoice | None

    def __init__(
        self,
        share: float,
        timed: str,
        rates: Sequence[int] = FRAME_RATES,
        lengths: Sequence[int] = DEFAULT_LENGTHS,
        heads: Sequence[bool] = (False,),
        spare: int | None = None,
    ) -> None:
        self._spare = None if spare is None else Pace(rates[0], spare, heads[0])
        #: What is served if the length for time to spare is not held. None: that is not on trial.
        self._held: RateChoice | None = None
        self._paces = paces(rates, lengths, heads)
        self._cheapest = lengths[-1], heads[-1]
        self._share = share
        self._timed = timed
        self._place = 0
        self._may_retry = len(lengths) == len(heads) == 1
        self._not_before = 0.0
        self._sent = 0
        self._return_times: list[float] = []
        self._began = 0.0
        self._too_slow: list[str] = []
        self.attempt = 0
        self.result = None

    @property
    def pace(self) -> Pace:
        """The rate and the length of clips on trial."""
        if self._held is not None:
            assert self._spare is not None
            return self._spare
        return self._paces[self._place]

    @property
    def fps(self) -> int:
        """The rate on trial."""
        return self.pace.fps

    @property
    def returned(self) -> int:
        """Clips of this attempt that are back."""
        return len(self._return_times)

    @property
    def in_flight(self) -> int:
        """Clips of this attempt that are sent and not back."""
        return self._sent - len(self._return_times)

    def clips_to_send(self, now: float) -> int:
        """How many clips of this pace may be sent at time `now`, in seconds."""
        if self.result is not None or now < self._not_before:
            return 0
        return min(CLIPS_IN_FLIGHT - self.in_flight, TIMED_CLIPS + FOLLOWING_CLIPS - self._sent)

    def clip_sent(self, denoise_seconds: float, now: float) -> None:
        """Reports that a clip has been sent, after `denoise_seconds` in the denoiser."""
        if self._sent == 0:
            self._began = now - denoise_seconds
        self._sent += 1
        if denoise_seconds > GIVE_UP_FACTOR * self.pace.lasts:
            self._may_retry = False
            self._judge(denoise_seconds, now)

    def clip_returned(self, attempt: int, now: float) -> None:
        """Reports that a clip sent during `attempt` is done. Clips of earlier attempts do not count."""
        if self.result is not None or attempt != self.attempt:
            return
        self._return_times.append(now)
        if len(self._return_times) == TIMED_CLIPS + FOLLOWING_CLIPS:
            # The first clip fills the pipeline. From then on clips come one a clip time, while more follow.
            self._judge(
                (self._return_times[TIMED_CLIPS - 1] - self._return_times[0]) / (TIMED_CLIPS - 1), now
            )

    def _judge(self, clip_seconds: float, now: float) -> None:
        """Ends the attempt: the rate is held, is tried again, or gives way to the next lower one."""
        pace, lowest = self.pace, self._place == len(self._paces) - 1
        made = RateChoice(pace.fps, clip_seconds, "", pace.clip_frames, pace.fine)
        share = max(self._share, MAX_SHARE_AT_LOWEST) if lowest else self._share
        alone = self._return_times[0] - self._began if pace.fine and self._return_times else 0.0
        most = share * pace.lasts
        load = clip_seconds / most  # a late answer says nothing of longer clips, so it is not in the load
        # A length for time to spare need not answer sooner than the one that is held.
        soon = alone <= share * self._paces[self._place].lasts
        held = load <= 1 and soon
        has_spare = clip_seconds <= SPARE_SHARE * pace.lasts
        self._sent, self._return_times = 0, []
        self.attempt += 1
        if self._held is not None:
            self.result = made if held and has_spare else self._held
        elif held and has_spare and self._place == 0 and self._spare is not None:
            self._held = made
        elif held:
            self.result = replace(made, notice=self._notice(held))
        elif self._may_retry:
            self._may_retry, self._not_before = False, now + RETRY_DELAY
        else:
            if self._is_cheapest:
                self._too_slow.append(f"{clip_seconds:.2f} s at {pace.fps} fps")
            if lowest:
                self.result = replace(made, notice=self._notice(held))
            else:
                self._place = next_after(self._paces, self._place, load)
                self._may_retry = self._is_cheapest

    @property
    def _is_cheapest(self) -> bool:
        """Whether the pace on trial is the cheapest of its rate."""
        return (self.pace.clip_frames, self.pace.fine) == self._cheapest

    def _notice(self, held: bool) -> str:
        if not self._too_slow:
            return ""
        took = f"{self._timed} of {self.pace.lasts:.2f} s takes {', '.join(self._too_slow)}"
        return phrase("rate_held" if held else "rate_too_slow", fps=self.fps, why=took)
