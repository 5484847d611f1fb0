"""A machine that denoises and decodes clips with a governor, in steps of 20 ms of its own time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from gpu_worker.rate.governor import RateGovernor
from gpu_worker.rate.service import ServiceLog
from gpu_worker.rate.thinning import thinned_frames
from protocol.wire.messages import ClipKey

STEP = 0.02


@dataclass
class Part:
    """A clip on its way, with the work that is left of its present part, in seconds of a free machine."""

    key: ClipKey
    frames: int
    left: float


@dataclass
class Machine:
    """Denoising and decoding share the machine, as on a CPU.

    Attributes:
        cost: seconds that a clip of `frames` frames takes at full speed, both parts together.
        speed: the machine's speed at a time, 1 for full.
        sessions: how many sessions speak at a time.
    """

    cost: Callable[[int], float]
    speed: Callable[[float], float] = lambda _: 1.0
    sessions: Callable[[float], int] = lambda _: 1
    start: int = 24
    now: float = 0.0
    #: (time, rate) of each change.
    changes: list[tuple[float, int]] = field(default_factory=list)
    #: (arrival, delay, frames) of each clip.
    clips: list[tuple[float, float, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.log = ServiceLog()
        self.governor = RateGovernor(self.log)
        self.governor.start_at(self.start, "cpu")
        self._queue: deque[ClipKey] = deque()
        self._denoise: deque[Part] = deque()
        self._decode: deque[Part] = deque()
        self._arrived: dict[ClipKey, float] = {}
        self._spoken = 0

    def run(self, until: float) -> None:
        """Go on to this time."""
        while self.now < until:
            self.now = round(self.now + STEP, 6)
            if self.now >= self._spoken * 0.5:
                self._arrive()
            while self._queue and len(self._denoise) < 2:
                key = self._queue.popleft()
                frames = thinned_frames(12, 24, self.governor.fps)
                self.log.begun(key, frames)
                self._denoise.append(Part(key, frames, self.cost(frames) / 2))
            self._work()
            if self.governor.update(self.now):
                self.changes.append((self.now, self.governor.fps))

    def _arrive(self) -> None:
        for number in range(self.sessions(self.now)):
            key = (f"s{number}", 0, self._spoken)
            waiting = [one for one in self._queue if one[0] == key[0]]
            if len(waiting) == 2:
                self._queue.remove(waiting[0])
                self.log.keep_only(set(self._arrived).difference({waiting[0]}).__contains__)
            self._queue.append(key)
            self._arrived[key] = self.now
            self.log.arrived(key, 12, 24, self.now)
        self._spoken += 1

    def _work(self) -> None:
        busy = [parts[0] for parts in (self._denoise, self._decode) if parts]
        for part in busy:
            part.left -= STEP * self.speed(self.now) / len(busy)
        if self._decode and self._decode[0].left <= 0:
            part = self._decode.popleft()
            arrived = self._arrived[part.key]
            self.clips.append((arrived, self.now - arrived, part.frames))
            self.log.done(part.key, self.now)
        if self._denoise and self._denoise[0].left <= 0:
            part = self._denoise.popleft()
            self._decode.append(Part(part.key, part.frames, self.cost(part.frames) / 2))

    def rate_at(self, time: float) -> int:
        """The rate in force at a time."""
        return next((fps for at, fps in reversed(self.changes) if at <= time), self.start)
