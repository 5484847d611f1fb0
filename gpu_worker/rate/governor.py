"""The frame rate while sessions speak: down as soon as clips come late, up when the machine has room.

Down: a clip in hand is late, and its sessions need more of the machine than there is. The highest rate that
the last clips' times leave room for comes next. Up: for some seconds the machine has had room for a higher
rate. A rise that does not last doubles the wait for the next one, so the rate does not swing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import mean, median

from gpu_worker.rate.joining import most_joined
from gpu_worker.rate.service import ServiceLog
from gpu_worker.rate.thinning import thinned_frames
from protocol.wire.clock import FRAME_RATES, FULL_RATE, USUAL_CLIP_FRAMES

#: Rates in service, from the highest down. The last two are for a machine that is slowed down: few frames of
#: each clip are better than none of every second one.
SERVED_RATES = (*FRAME_RATES, 6, 4)

#: Seconds past its turn, and part of its own length, from which a clip is late: 0.55 s for half a second.
#: Then how much more than usual for this machine.
LATE_AFTER = 0.3
LATE_BY_LENGTH = 0.5
LATE_BEYOND_USUAL = 0.25

#: Most delay that counts as usual, in seconds.
MOST_USUAL = 1.0

#: Share of the machine's time above which clips that are late stay late.
FULL_LOAD = 0.9

#: Seconds after a change before the rate falls again.
SETTLE = 0.75

#: Seconds by which a clip may be late while the backlog is worked off.
HOPELESS = 1.5

#: Most of the machine's time that a higher rate may be expected to take, by type of device. A GPU's times are
#: those of denoising and decoding one after the other, and clips in a row overlap there.
MOST_LOAD_TO_RISE = {"cpu": 0.95, "cuda": 1.2}

#: Most load, in times of that, at which the next higher rate is worth a try. A clip that comes alone has
#: waits in its time that clips in a row do not have.
LOAD_WORTH_A_TRY = 1.35

#: How many times the patience there must be no late clip before a try, and the clips that tell the load.
PATIENCE_FOR_A_TRY = 6
CLIPS_BEFORE_A_TRY = 12

#: Seconds of room for a higher rate before it is served: at first, and at most.
FIRST_PATIENCE = 2.5
MOST_PATIENCE = 120.0

#: A rise that lasts shorter has failed, and one that lasts longer has succeeded (seconds).
RISE_FAILED = 10.0
RISE_SUCCEEDED = 60.0

#: Frames that take as long as the part of a clip that does not depend on its frames, until that is timed.
#: On two cores with bfloat16, clips of 1 and 4 frames take 39 and 76 ms.
FRAMES_OF_A_CALL = 2

#: Clips at the present rate before it may rise, and the latest ones that say what a clip takes.
CLIPS_TO_RISE = 3
LATEST_CLIPS = 4


class RateGovernor:
    """Chooses the rate of the next clips. Does no I/O and reads no clock.

    Args:
        log: of the clips in service.
        rates: to choose from, from the highest down.
        ready: whether a rate's clips can be made as fast as the machine can. Another rate might be slower
            than a higher one.
    """

    #: The rate of the next clips.
    fps: int
    #: Part of a full clip's time that does not depend on its frames, 0 to 1. None before it was timed.
    fixed_share: float | None
    #: At the last change: seconds that a clip with all its frames took, and by which the latest was late.
    cost: float
    late: float

    def __init__(
        self,
        log: ServiceLog,
        rates: Sequence[int] = SERVED_RATES,
        ready: Callable[[int], bool] = lambda _: True,
    ) -> None:
        self._log = log
        self._rates = rates
        self._ready = ready
        self._most_load = MOST_LOAD_TO_RISE["cpu"]
        self._full_frames = USUAL_CLIP_FRAMES
        self.fps = rates[0]
        self.fixed_share = None
        self.cost = self.late = 0.0
        self._changed_at = float("-inf")
        self._rose_at = float("-inf")
        self._late_at = float("-inf")
        self._room_since: float | None = None
        self._patience = FIRST_PATIENCE

    def start_at(self, fps: int, device_type: str, clip_frames: int = USUAL_CLIP_FRAMES) -> None:
        """Serve the rate that a trial has found.

        Args:
            fps: the rate.
            device_type: that denoises, "cpu" or "cuda".
            clip_frames: frames of a clip at 24 fps.
        """
        self.fps, self._full_frames = fps, clip_frames
        self._most_load = MOST_LOAD_TO_RISE[device_type]
        self._log.forget_times()

    def update(self, now: float) -> bool:
        """Look at the clips in service. Returns whether the rate has changed."""
        late = self._log.late(now)
        fps = self._lower_rate(now, late) if late > self._late_limit() else self._higher_rate(now)
        if fps == self.fps:
            return False
        self.late = late
        if fps > self.fps:
            self.cost = self.cost_of(LATEST_CLIPS)
            self._rose_at = now
        else:
            self.cost = self._worst_cost(now)
            self._judge_rise(now - self._rose_at)
        self.fps, self._changed_at, self._room_since = fps, now, None
        self._log.forget_times()
        return True

    def _judge_rise(self, lasted: float) -> None:
        """The rate falls `lasted` seconds after it rose."""
        if lasted < RISE_FAILED:
            self._patience = min(2 * self._patience, MOST_PATIENCE)
        elif lasted > RISE_SUCCEEDED:
            self._patience = FIRST_PATIENCE

    def _late_limit(self) -> float:
        times = self._log.times
        least = LATE_AFTER + LATE_BY_LENGTH * self._full_frames / FULL_RATE
        if len(times) < CLIPS_TO_RISE:
            return least
        usual = min(MOST_USUAL, median(time.delay for time in times))
        return max(least, usual + LATE_BEYOND_USUAL)

    def _lower_rate(self, now: float, late: float) -> int:
        self._room_since = None
        self._late_at = now
        cost = self._worst_cost(now)
        if now - self._changed_at < SETTLE or not self._log.speaking(now):
            return self.fps
        if late < HOPELESS and self._load(self.fps, cost, now) <= FULL_LOAD:
            return self.fps  # the backlog shrinks by itself
        lower = [fps for fps in self._rates if fps < self.fps and self._ready(fps)]
        fitting = (fps for fps in lower if self._load(fps, cost, now) <= FULL_LOAD)
        return next(fitting, min(lower, default=self.fps))

    def _higher_rate(self, now: float) -> int:
        if len(self._log.times) < CLIPS_TO_RISE or not self._log.speaking(now):
            self._room_since = None
            return self.fps
        fps = self._highest_within(self._most_load, now)
        if fps == self.fps:
            self._room_since = None
            return self._worth_a_try(now)
        if self._room_since is None:
            self._room_since = now
        return fps if now - self._room_since >= self._patience else self.fps

    def _higher(self) -> list[int]:
        """The rates above the present one that clips can be made at, from the highest down."""
        return [fps for fps in self._rates if fps > self.fps and self._ready(fps)]

    def _highest_within(self, most: float, now: float) -> int:
        cost = self.cost_of(LATEST_CLIPS)
        return next((fps for fps in self._higher() if self._load(fps, cost, now) <= most), self.fps)

    def _worth_a_try(self, now: float) -> int:
        """The next higher rate, after a long time without a late clip, if its load may fit."""
        quiet = now - max(self._changed_at, self._late_at)
        if quiet < PATIENCE_FOR_A_TRY * self._patience:
            return self.fps
        cost, most = self.cost_of(CLIPS_BEFORE_A_TRY), LOAD_WORTH_A_TRY * self._most_load
        nearest = self._higher()[-1:]
        return next((fps for fps in nearest if self._load(fps, cost, now) <= most), self.fps)

    def cost_of(self, clips: int) -> float:
        """Seconds that a full clip takes, the median of so many clips. 0 without any."""
        times = list(self._log.times)[-clips:]
        return median(time.seconds / self.weight(time.frames) for time in times) if times else 0.0

    def _worst_cost(self, now: float) -> float:
        """Seconds that a full clip takes, by the last second and the clip that is made now.

        Of short clips the mean of half a second counts, as it does of usual ones by themselves. A halt of
        40 ms is half of a short clip's time.
        """
        together = max(1, USUAL_CLIP_FRAMES // self._full_frames)
        costs = [time.seconds / self.weight(time.frames) for time in self._log.times]
        costs = costs[-2 * together :]
        if (present := self._log.in_progress(now)) is not None:
            costs.append(present[0] / self.weight(present[1]))
        ends = range(len(costs), 0, -together)
        return max((mean(costs[max(0, end - together) : end]) for end in ends), default=0.0)

    def _load(self, fps: int, cost: float, now: float) -> float:
        """Share of the machine's time that the sessions would take at `fps`, if clips are joined.

        Args:
            fps: of the clips.
            cost: seconds that a clip with all its frames takes.
            now: the time.
        """
        load = 0.0
        for frames, rate in self._log.speaking(now):
            clips = most_joined(frames, rate, fps)
            load += cost * self.weight(clips * thinned_frames(frames, rate, fps)) * rate / (clips * frames)
        return load

    def weight(self, frames: int) -> float:
        """The time of a clip with so many frames, in times of one with all its frames."""
        share = FRAMES_OF_A_CALL / (FRAMES_OF_A_CALL + self._full_frames)
        if self.fixed_share is not None:
            share = self.fixed_share
        return share + (1 - share) * frames / self._full_frames
