"""What the gateway knows of the stages behind it, from the Status that each worker sends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from protocol.wire.messages import InfoValue, Status

STAGES = ("audio_worker", "gpu_worker", "encoder_worker")

V = TypeVar("V", str, int)


@dataclass(frozen=True)
class _Seen:
    status: Status
    at: float


class StageBoard:
    """The latest Status of every worker. A worker that says nothing for `silent_after` seconds is gone."""

    def __init__(self, silent_after: float) -> None:
        self._silent_after = silent_after
        self._seen: dict[tuple[str, str], _Seen] = {}

    def update(self, status: Status, now: float) -> None:
        self._seen[status.stage, status.worker] = _Seen(status, now)

    def tick(self, now: float) -> None:
        """Forget workers that have gone silent."""
        for key in [k for k, seen in self._seen.items() if now - seen.at > self._silent_after]:
            del self._seen[key]

    def workers(self, stage: str | None = None) -> list[Status]:
        """Every live worker's Status, or those of one stage, in the order of their names."""
        return [self._seen[k].status for k in sorted(self._seen) if stage in (None, k[0])]

    def report(self) -> dict[str, str]:
        """Stage → "warm", or why it is not yet."""
        return {stage: self._state(stage) for stage in STAGES}

    def warm(self) -> dict[str, int]:
        """Stage → how many of its workers are warm."""
        return {stage: sum(w.warm for w in self.workers(stage)) for stage in STAGES}

    @property
    def ready(self) -> bool:
        """Sessions can be served: every stage has a warm worker."""
        return all(self.warm().values())

    def _state(self, stage: str) -> str:
        workers = self.workers(stage)
        if any(w.warm for w in workers):
            return "warm"
        return "warming up" if workers else "not started"

    # ---- what the GPU workers say of the pictures

    @property
    def avatars(self) -> list[str]:
        return self._names("avatars")

    @property
    def poses(self) -> list[str]:
        return self._names("poses")

    @property
    def fps(self) -> int:
        """The rate that every warm GPU worker holds; 0 while none is warm."""
        return min((rate for rate in self._gpu("fps", 0) if rate > 0), default=0)

    @property
    def size(self) -> tuple[int, int]:
        return next(iter(self._gpu("width", 0)), 0), next(iter(self._gpu("height", 0)), 0)

    @property
    def notice(self) -> str:
        """Why the rate fell; empty when it did not."""
        return next((text for text in self._gpu("notice", "") if text), "")

    @property
    def model(self) -> str:
        return next(iter(self._gpu("model", "")), "")

    def _gpu(self, name: str, default: V) -> list[V]:
        values: list[InfoValue] = [w.info.get(name, default) for w in self.workers("gpu_worker") if w.warm]
        return [v for v in values if type(v) is type(default)]

    def _names(self, name: str) -> list[str]:
        """The names that every warm GPU worker has, in the first one's order."""
        lists = [w.info.get(name) for w in self.workers("gpu_worker") if w.warm]
        known = [value for value in lists if isinstance(value, list)]
        return [n for n in known[0] if all(n in other for other in known)] if known else []
