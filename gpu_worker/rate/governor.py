"""Frame rate and size of pictures while sessions speak: down when clips come late, up when there is room.

Down: a clip in hand is late, and its sessions need more of the machine than there is. The best of the lower
`grades` that the last clips' times leave room for comes next. The larger pictures go before a clip is so late
that it would cost frames. Up: for some seconds the machine has had room for a higher grade. A rise that does
not last doubles the wait for the next one, so neither swings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import mean, median

from gpu_worker.rate.grades import Grade, grades
from gpu_worker.rate.joining import most_joined
from gpu_worker.rate.service import ServiceLog
from gpu_worker.rate.thinning import thinned_frames
from gpu_worker.rate.trial import MAX_SHARE, max_share
from protocol.wire.clock import FRAME_RATES, FULL_RATE, USUAL_CLIP_FRAMES

#: Rates in service, from the highest down. The last two are for a machine that is slowed down: few frames of
#: each clip are better than none of every second one.
SERVED_RATES = (*FRAME_RATES, 6, 4)

#: Seconds past its turn, and part of its own length, from which a clip is late: 0.55 s for half a second.
#: Then how much more than usual for this machine.
LATE_AFTER = 0.3
LATE_BY_LENGTH = 0.5
LATE_BEYOND_USUAL = 0.25

#: Part of these from which larger pictures are given up: they go before any frame does.
SIZE_GOES_AT = 0.5

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

#: Less of it on one core of a CPU: Whisper, the gateway and the system take that core too. The trial leaves
#: them as much more there.
OTHERS_ON_ONE_CORE = MAX_SHARE - max_share(1)

#: Part of that for larger pictures, which leaves the margin that a rate has in the trial.
MOST_LOAD_FOR_SIZE = 0.84

#: Most load, in times of that, at which the next higher rate is worth a try. A clip that comes alone has
#: waits in its time that clips in a row do not have. One core of a CPU never waits, and tries nothing.
LOAD_WORTH_A_TRY = 1.35

#: How many times the patience there must be no late clip before a try, and the clips that tell the load.
PATIENCE_FOR_A_TRY = 6
CLIPS_BEFORE_A_TRY = 12

#: Seconds of room for a higher rate before it is served: at first, and at most.
FIRST_PATIENCE = 2.5
MOST_PATIENCE = 120.0

#: A rise that lasts shorter has failed, and one that lasts longer has succeeded (seconds). A machine that
#: holds nearly the higher rate falls behind slowly: at 1.05 of its time, a clip is late after 12 s.
RISE_FAILED = 30.0
RISE_SUCCEEDED = 60.0

#: The same four numbers for the size of pictures. A change there is seen as a change of sharpness, and begins
#: a new file of a recording, so it comes more rarely.
FIRST_SIZE_PATIENCE = 10.0
MOST_SIZE_PATIENCE = 480.0
SIZE_RISE_FAILED = 60.0
SIZE_RISE_SUCCEEDED = 600.0

#: Frames that take as long as the part of a clip that does not depend on its frames, until that is timed.
#: On two cores with bfloat16, clips of 1 and 4 frames take 39 and 76 ms.
FRAMES_OF_A_CALL = 2

#: Clips at the present rate before it may rise, and the latest ones that say what a clip takes.
CLIPS_TO_RISE = 3
LATEST_CLIPS = 4


@dataclass(slots=True)
class _Patience:
    """The wait for a rise, and how the last rise went. All in seconds."""

    first: float
    most: float
    failed: float
    succeeded: float
    now: float = field(init=False)
    rose_at: float = field(init=False, default=float("-inf"))

    def __post_init__(self) -> None:
        self.now = self.first

    def judge(self, now: float) -> None:
        """What had risen has fallen again."""
        lasted = now - self.rose_at
        if lasted < self.failed:
            self.now = min(2 * self.now, self.most)
        elif lasted > self.succeeded:
            self.now = self.first


class RateGovernor:
    """Chooses the rate and the size of the next clips. Does no I/O and reads no clock.

    Args:
        log: of the clips in service.
        rates: to choose from, from the highest down.
        ready: whether a rate's clips can be made as fast as the machine can. Another rate might be slower
            than a higher one.
        cores: of this machine.
    """

    #: What the next clips get.
    grade: Grade
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
        cores: int = 2,
    ) -> None:
        self._log = log
        self._cores = cores
        self._rates = rates
        self._grades = grades(rates, sizes=False)
        self._ready = ready
        self._most_load = MOST_LOAD_TO_RISE["cpu"]
        self._may_try = True
        self._full_frames = USUAL_CLIP_FRAMES
        self.grade = self._grades[0]
        self.fixed_share = None
        self.cost = self.late = 0.0
        self._changed_at = float("-inf")
        self._late_at = float("-inf")
        self._room_since: float | None = None
        self._rate_patience = _Patience(FIRST_PATIENCE, MOST_PATIENCE, RISE_FAILED, RISE_SUCCEEDED)
        self._size_patience = _Patience(
            FIRST_SIZE_PATIENCE, MOST_SIZE_PATIENCE, SIZE_RISE_FAILED, SIZE_RISE_SUCCEEDED
        )

    @property
    def fps(self) -> int:
        """Frames a second of the next clips."""
        return self.grade.fps

    def start_at(
        self,
        fps: int,
        device_type: str,
        clip_frames: int = USUAL_CLIP_FRAMES,
        *,
        fine: bool = False,
        sizes: bool = False,
    ) -> None:
        """Serve what a trial has found.

        Args:
            fps: the rate.
            device_type: that denoises, "cpu" or "cuda".
            clip_frames: frames of a clip at 24 fps.
            fine: whether the pictures are of twice the side.
            sizes: whether they may have either size.
        """
        self._grades = grades(self._rates, sizes=sizes)
        self.grade, self._full_frames = Grade(fps, fine and sizes), clip_frames
        self._most_load = MOST_LOAD_TO_RISE[device_type]
        self._may_try = self._cores > 1 or device_type != "cpu"
        if not self._may_try:
            self._most_load -= OTHERS_ON_ONE_CORE
        self._log.forget_times()

    def update(self, now: float) -> bool:
        """Look at the clips in service. Returns whether the rate or the size has changed."""
        late, before = self._log.late(now), self.grade
        if late > self._late_limit(1.0):
            grade = self._lower(now, late)
        elif before.fine and late > self._late_limit(SIZE_GOES_AT):
            grade = self._smaller(now)
        else:
            grade = self._higher(now)
        if grade == before:
            return False
        self.late = late
        self._take(grade, now)
        return True

    def _take(self, grade: Grade, now: float) -> None:
        before, self._room_since = self.grade, None
        if grade < before:
            self.cost = self._worst_cost(now)
        else:
            self.cost = self.cost_of(LATEST_CLIPS)
        rises = grade.fps - before.fps, grade.fine - before.fine
        for patience, rise in zip((self._rate_patience, self._size_patience), rises, strict=True):
            if rise > 0:
                patience.rose_at = now
            elif rise < 0:
                patience.judge(now)
        if grade.fps != before.fps:  # a rate may fall right after the size
            self._changed_at = now
        self.grade = grade
        self._log.forget_times()

    def _late_limit(self, part: float) -> float:
        """Seconds past its turn from which a clip is late, or nearly late by a part below 1."""
        times = self._log.times
        least = part * (LATE_AFTER + LATE_BY_LENGTH * self._full_frames / FULL_RATE)
        if len(times) < CLIPS_TO_RISE:
            return least / part
        usual = min(MOST_USUAL, median(time.delay for time in times))
        return max(least, usual + part * LATE_BEYOND_USUAL)

    def _lower(self, now: float, late: float) -> Grade:
        self._room_since = None
        self._late_at = now
        cost = self._worst_cost(now)
        if now - self._changed_at < SETTLE or not self._log.speaking(now):
            return self.grade
        if late < HOPELESS and self._load(self.grade, cost, now) <= FULL_LOAD:
            return self.grade  # the backlog shrinks by itself
        lower = [grade for grade in self._grades if grade < self.grade]
        lower = [grade for grade in lower if grade.fps == self.fps or self._ready(grade.fps)]
        fitting = (grade for grade in lower if self._load(grade, cost, now) <= FULL_LOAD)
        return next(fitting, lower[-1] if lower else self.grade)

    def _smaller(self, now: float) -> Grade:
        """Smaller pictures, if the sessions need more of the machine than there is."""
        self._room_since = None
        self._late_at = now
        overloaded = self._load(self.grade, self._worst_cost(now), now) > FULL_LOAD
        return Grade(self.fps) if overloaded and self._log.speaking(now) else self.grade

    def _higher(self, now: float) -> Grade:
        if len(self._log.times) < CLIPS_TO_RISE or not self._log.speaking(now):
            self._room_since = None
            return self.grade
        grade = self._highest_within(now)
        if grade == self.grade:
            self._room_since = None
            return self._worth_a_try(now)
        if self._room_since is None:
            self._room_since = now
        patience = self._size_patience if grade.fine else self._rate_patience
        return grade if now - self._room_since >= patience.now else self.grade

    def _above(self) -> list[Grade]:
        """The grades above the present one that clips can be made at, from the highest down.

        Larger pictures come after the highest rate.
        """
        above = [grade for grade in self._grades if grade > self.grade]
        return [
            grade
            for grade in above
            if (self.fps if grade.fine else grade.fps) == grade.fps and self._ready(grade.fps)
        ]

    def _highest_within(self, now: float) -> Grade:
        cost = self.cost_of(LATEST_CLIPS)
        for grade in self._above():
            most = self._most_load * (MOST_LOAD_FOR_SIZE if grade.fine else 1.0)
            if self._load(grade, cost, now) <= most:
                return grade
        return self.grade

    def _worth_a_try(self, now: float) -> Grade:
        """The next higher rate, after a long time without a late clip, if its load may fit."""
        quiet = now - max(self._changed_at, self._late_at)
        if not self._may_try or quiet < PATIENCE_FOR_A_TRY * self._rate_patience.now:
            return self.grade
        cost, most = self.cost_of(CLIPS_BEFORE_A_TRY), LOAD_WORTH_A_TRY * self._most_load
        nearest = [grade for grade in self._above() if not grade.fine][-1:]
        return next((grade for grade in nearest if self._load(grade, cost, now) <= most), self.grade)

    def cost_of(self, clips: int) -> float:
        """Seconds that a full clip of the present size takes, the median of so many. 0 without any."""
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

    def _load(self, grade: Grade, cost: float, now: float) -> float:
        """Share of the machine's time that the sessions would take at a grade, if clips are joined.

        Args:
            grade: of the clips.
            cost: seconds that a clip with all its frames takes at the present size.
            now: the time.
        """
        load, fps = 0.0, grade.fps
        cost *= grade.cost(self.grade)
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
