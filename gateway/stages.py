"""The state of the stages behind the gateway, from the Status that each worker sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from gateway.stage_times import TimesInStages
from protocol.wire.messages import InfoValue, Status

STAGES = ("audio_worker", "gpu_worker", "encoder_worker")

V = TypeVar("V", str, int)


@dataclass(frozen=True)
class _TimedStatus:
    status: Status
    at: float


class StageBoard:
    """The latest Status of every worker."""

    def __init__(self, silent_after: float) -> None:
        """A worker that sends nothing for `silent_after` seconds counts as gone."""
        self._silent_after = silent_after
        self._seen: dict[tuple[str, str], _TimedStatus] = {}
        #: How long clips are in each stage.
        self.times = TimesInStages()

    def take_status(self, status: Status, now: float) -> None:
        """Keep a worker's newest Status."""
        self._seen[status.stage, status.worker] = _TimedStatus(status, now)
        self.times.take(status)

    def forget_worker(self, stage: str, worker: str) -> None:
        """Forget a worker whose connection has ended."""
        self._seen.pop((stage, worker), None)
        self.times.forget(stage, worker)

    def forget_silent_workers(self, now: float) -> None:
        """Forget the workers that have sent nothing for too long."""
        for stage, worker in [k for k, seen in self._seen.items() if now - seen.at > self._silent_after]:
            self.forget_worker(stage, worker)

    def workers(self, stage: str | None = None) -> list[Status]:
        """Every live worker's Status, or those of one stage, in the order of their names."""
        return [self._seen[k].status for k in sorted(self._seen) if stage in (None, k[0])]

    def states(self) -> dict[str, str]:
        """Stage → "warm", "warming up" or "not started"."""
        return {stage: self._state(stage) for stage in STAGES}

    def warm_workers(self) -> dict[str, int]:
        """Stage → how many of its workers are warm."""
        return {stage: sum(w.warm for w in self.workers(stage)) for stage in STAGES}

    @property
    def ready(self) -> bool:
        """Whether sessions can be served: every stage has a warm worker."""
        return all(self.warm_workers().values())

    def _state(self, stage: str) -> str:
        workers = self.workers(stage)
        if any(w.warm for w in workers):
            return "warm"
        return "warming up" if workers else "not started"

    # ---- facts that the GPU workers report

    @property
    def avatars(self) -> list[str]:
        """The avatars that every warm GPU worker has."""
        return self._common_names("avatars")

    @property
    def poses(self) -> list[str]:
        """The poses that every warm GPU worker has."""
        return self._common_names("poses")

    @property
    def fps(self) -> int:
        """The frame rate that every warm GPU worker holds now, 0 while none is warm."""
        return min((rate for rate in self._gpu_facts("fps", 0) if rate > 0), default=0)

    @property
    def full_fps(self) -> int:
        """The rate at which clips are asked for. A worker that holds less makes some of a clip's frames."""
        return min((rate for rate in self._gpu_facts("full_fps", 0) if rate > 0), default=self.fps)

    @property
    def clip_frames(self) -> int:
        """Frames of a clip at 24 fps that the GPU workers are ready for, 0 where none says it."""
        return max(self._gpu_facts("clip_frames", 0), default=0)

    @property
    def sessions(self) -> int:
        """Sessions that the warm GPU workers can serve together, 0 where none has measured it."""
        return sum(count for count in self._gpu_facts("sessions", 0) if count > 0)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of frames in pixels, 0 while no GPU worker is warm."""
        return next(iter(self._gpu_facts("width", 0)), 0), next(iter(self._gpu_facts("height", 0)), 0)

    @property
    def rate_notice(self) -> str:
        """Why the frame rate fell. Empty when it did not."""
        return next((text for text in self._gpu_facts("notice", "") if text), "")

    @property
    def model(self) -> str:
        """The model's name. Empty while no GPU worker is warm."""
        return next(iter(self._gpu_facts("model", "")), "")

    @property
    def codecs(self) -> list[str]:
        """The codecs of pictures, besides JPEG, that every warm encoder has."""
        return self._common_names("codecs", "encoder_worker")

    def _gpu_facts(self, name: str, default: V) -> list[V]:
        values: list[InfoValue] = [w.info.get(name, default) for w in self.workers("gpu_worker") if w.warm]
        return [v for v in values if type(v) is type(default)]

    def _common_names(self, name: str, stage: str = "gpu_worker") -> list[str]:
        """The names that every warm worker of the stage has, in the first one's order."""
        lists = [w.info.get(name) for w in self.workers(stage) if w.warm]
        known = [value for value in lists if isinstance(value, list)]
        return [n for n in known[0] if all(n in other for other in known)] if known else []
