"""A machine that denoises and decodes clips with a governor, in steps of 20 ms of its own time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from gpu_worker.rate.governor import RateGovernor
from gpu_worker.rate.joining import most_joined
from gpu_worker.rate.service import ServiceLog
from gpu_worker.rate.thinning import thinned_frames
from protocol.wire.messages import ClipKey

STEP = 0.02


@dataclass
class Part:
    """Clips on their way together, with the work that is left of their present part.

    `left` is in seconds of a free machine.
    """

    keys: list[ClipKey]
    frames: int
    left: float


@dataclass
class Machine:
    """Denoising and decoding share the machine, as on a CPU.

    Attributes:
        cost: seconds that `frames` frames made together take at full speed, both parts together.
        speed: the machine's speed at a time, 1 for full.
        sessions: how many sessions speak at a time.
        frames: of a clip at 24 fps.
        joins: whether clips that wait are made together.
        fine: whether clips begin with larger pictures, or None where there is one size.
        fine_costs: times that a clip of these costs.
        cores: that the governor knows of.
    """

    cost: Callable[[int], float]
    speed: Callable[[float], float] = lambda _: 1.0
    sessions: Callable[[float], int] = lambda _: 1
    start: int = 24
    frames: int = 12
    joins: bool = True
    fine: bool | None = None
    fine_costs: float = 1.25
    cores: int = 2
    now: float = 0.0
    #: (time, rate) of each change.
    changes: list[tuple[float, int]] = field(default_factory=list)
    #: (arrival, delay, frames) of each clip.
    clips: list[tuple[float, float, int]] = field(default_factory=list)
    #: How many clips were made together, of each call.
    calls: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = ServiceLog()
        self.governor = RateGovernor(self.log, cores=self.cores)
        sizes = self.fine is not None
        self.governor.start_at(self.start, "cpu", self.frames, fine=bool(self.fine), sizes=sizes)
        #: (time, whether the pictures are larger) of each change.
        self.sizes: list[tuple[float, bool]] = []
        self._queue: deque[ClipKey] = deque()
        self._denoise: deque[Part] = deque()
        self._decode: deque[Part] = deque()
        self._arrived: dict[ClipKey, float] = {}
        self._spoken = 0

    def run(self, until: float) -> None:
        """Go on to this time."""
        while self.now < until:
            self.now = round(self.now + STEP, 6)
            if self.now >= self._spoken * self.frames / 24:
                self._arrive()
            while self._queue and len(self._denoise) < 2:
                keys = self._take()
                frames = len(keys) * thinned_frames(self.frames, 24, self.governor.fps)
                self.log.begun(keys, frames)
                self._denoise.append(Part(keys, frames, self._half(frames)))
            self._work()
            before = self.governor.grade
            if self.governor.update(self.now):
                grade = self.governor.grade
                if grade.fps != before.fps:
                    self.changes.append((self.now, grade.fps))
                if grade.fine != before.fine:
                    self.sizes.append((self.now, grade.fine))

    def _half(self, frames: int) -> float:
        """Seconds of a free machine for denoising, or for decoding."""
        return self.cost(frames) / 2 * (self.fine_costs if self.governor.grade.fine else 1.0)

    def _take(self) -> list[ClipKey]:
        """The clip that is next, and those of its session that are made with it."""
        keys = [self._queue.popleft()]
        most = most_joined(self.frames, 24, self.governor.fps) if self.joins else 1
        for key in [one for one in self._queue if one[0] == keys[0][0]][: most - 1]:
            self._queue.remove(key)
            keys.append(key)
        self.calls.append(len(keys))
        return keys

    def _arrive(self) -> None:
        for number in range(self.sessions(self.now)):
            key = (f"s{number}", 0, self._spoken)
            waiting = [one for one in self._queue if one[0] == key[0]]
            if len(waiting) == 24 // self.frames:
                self._queue.remove(waiting[0])
                self.log.keep_only(set(self._arrived).difference({waiting[0]}).__contains__)
            self._queue.append(key)
            self._arrived[key] = self.now
            self.log.arrived(key, self.frames, 24, self.now)
        self._spoken += 1

    def _work(self) -> None:
        busy = [parts[0] for parts in (self._denoise, self._decode) if parts]
        for part in busy:
            part.left -= STEP * self.speed(self.now) / len(busy)
        if self._decode and self._decode[0].left <= 0:
            part = self._decode.popleft()
            for key in part.keys:
                arrived = self._arrived[key]
                self.clips.append((arrived, self.now - arrived, part.frames // len(part.keys)))
                self.log.done(key, self.now)
        if self._denoise and self._denoise[0].left <= 0:
            part = self._denoise.popleft()
            self._decode.append(Part(part.keys, part.frames, self._half(part.frames)))

    def rate_at(self, time: float) -> int:
        """The rate in force at a time."""
        return next((fps for at, fps in reversed(self.changes) if at <= time), self.start)
