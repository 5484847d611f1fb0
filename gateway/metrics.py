"""The text of /metrics: the gateway's sessions, its hop, and the figures that every worker reports."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway.connection import Connection
from gateway.metric_families import MetricFamilies
from gateway.stages import STAGES, StageBoard
from protocol.wire.figures import CLIP_TIME_BOUNDS_MS, Histogram
from protocol.wire.messages import Failed

PREFIX = "echomimic_"
#: Counters of a session that add up over all sessions: name → help.
SESSION_COUNTERS = {
    "frames_sent": "Frames sent to clients.",
    "frames_late": "Frames that arrived after their turn.",
    "frames_dropped": "Frames dropped for clients that were too slow.",
    "frames_lost": "Frames that never arrived.",
    "duplicates": "Frames dropped as doubled or out of date.",
    "clips_done": "Clips played out.",
    "clips_failed": "Clips with frames missing.",
}
#: Help of the gateway's other figures.
GATEWAY_TEXTS = {
    "sessions": "Sessions that run now.",
    "sessions_capacity": "Sessions that there can be at once.",
    "fps": "Frames a second that the machine holds now.",
    "ready": "1 when every stage has a warm worker.",
    "sessions_total": "Sessions begun, by version of the wire.",
    "errors_total": "Sessions ended by an error, by its code.",
    "refused_total": "Requests and websockets refused at the door, by code.",
    "failures_total": "Clips that a stage gave up: by overload, by a fault, or fatal for the session.",
    "received_bytes_total": "Bytes received from clients.",
    "sent_bytes_total": "Bytes sent to clients.",
    "first_frame_seconds": "From the arrival of a clip's last sample to the sending of its first frame.",
    "session_length_seconds": "Length of the sessions that are over.",
    "session_latency_seconds": "first_frame_seconds of one running session.",
    "session_fps": "Frames sent a second to one running session.",
    "session_clips_waiting": "Clips of one running session whose frames have not all arrived.",
}
#: Help of the figures that workers report. The gateway reports those of the pcm hop.
STAGE_TEXTS = {
    "warm": "1 when the worker takes work.",
    "clip_in_stage_seconds": "From a clip's arrival in the stage to its result handed on.",
    "pcm_queued_seconds": "How long PCM waited for an audio worker.",
    "clips_queued_seconds": "How long clips waited for a GPU worker.",
    "latents_queued_seconds": "How long latents waited for an encoder worker.",
    "clips_total": "Clips finished.",
    "held_jobs": "Jobs taken and not yet acknowledged.",
    "fine_pictures": "1 while the GPU worker asks for the larger one of two sizes of pictures.",
    "resident_bytes": "Resident memory of the worker's process.",
}
#: Causes of `failures_total`: too much work, an error in one clip, an error that ends the session.
FAILURE_CAUSES = ("overload", "fault", "fatal")
#: Bounds of a session's length, in milliseconds: a page closed at once (1 s), a sentence, a minute, a
#: conversation, hours.
SESSION_LENGTH_BOUNDS_MS = (1_000, 5_000, 15_000, 60_000, 300_000, 900_000, 3_600_000, 14_400_000)


@dataclass
class SessionTotals:
    """Figures of all sessions since the gateway started."""

    #: Sessions begun, by version of the wire.
    begun: Counter[int] = field(default_factory=Counter)
    #: Sessions ended by an error, by its code.
    errors: Counter[str] = field(default_factory=Counter)
    #: Requests refused at the door, by code.
    refused: Counter[str] = field(default_factory=Counter)
    #: Clips that a stage gave up, by stage and cause. Every pair starts at 0, so that rates can be computed
    #: from the first failure on.
    failures: Counter[tuple[str, str]] = field(
        default_factory=lambda: Counter({(stage, cause): 0 for stage in STAGES for cause in FAILURE_CAUSES})
    )
    #: Counters of the sessions that are over, by name.
    ended: Counter[str] = field(default_factory=Counter)
    lengths: Histogram = field(default_factory=lambda: Histogram(SESSION_LENGTH_BOUNDS_MS))
    first_frames: Histogram = field(default_factory=lambda: Histogram(CLIP_TIME_BOUNDS_MS))

    def add_ended(self, connection: Connection, now: float) -> None:
        """Keep the counters and the length of a session that ends."""
        assert connection.core is not None
        self.ended.update(_session_counters(connection))
        self.lengths.add(now - connection.core.began_at)

    def add_failure(self, failed: Failed) -> None:
        """Count a clip that a stage gave up."""
        cause = "fatal" if failed.fatal else "overload" if failed.reason.startswith("overload") else "fault"
        if failed.stage in STAGES:
            self.failures[failed.stage, cause] += 1

    def figures(self, running: list[Connection]) -> dict[str, float]:
        """Counters of ended and running sessions together, and the histograms."""
        counters = self.ended.copy()
        for connection in running:
            counters.update(_session_counters(connection))
        figures = {
            name: float(counters[name]) for name in (*SESSION_COUNTERS, "received_bytes", "sent_bytes")
        }
        return (
            {f"{name}_total": value for name, value in figures.items()}
            | self.first_frames.figures("first_frame_seconds")
            | self.lengths.figures("session_length_seconds")
        )


def _session_counters(connection: Connection) -> dict[str, int]:
    counters = {name: int(getattr(connection.core, name)) for name in SESSION_COUNTERS}
    return counters | {"received_bytes": connection.incoming.bytes, "sent_bytes": connection.bytes_out}


class GatewayCollector(Collector):
    """Makes metric families of the present figures whenever /metrics is asked for."""

    def __init__(
        self,
        totals: SessionTotals,
        running: Callable[[], list[Connection]],
        pcm_hop_figures: Callable[[], dict[str, float]],
        board: StageBoard,
        capacity: Callable[[], int],
    ) -> None:
        self._totals = totals
        self._running = running
        self._pcm_hop_figures = pcm_hop_figures
        self._board = board
        self._capacity = capacity
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """Everything in the Prometheus text format."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Every family: the gateway's, then those of the stages."""
        yield from self._gateway_families()
        yield from self._stage_families()

    def _gateway_families(self) -> MetricFamilies:
        running = self._running()
        texts = GATEWAY_TEXTS | {f"{name}_total": text for name, text in SESSION_COUNTERS.items()}
        families = MetricFamilies(PREFIX, texts)
        counts = {"sessions": len(running), "sessions_capacity": self._capacity(), "fps": self._board.fps}
        families.add(counts | {"ready": self._board.ready}, {})
        for version in (1, 2):
            families.add({"sessions_total": self._totals.begun[version]}, {"version": str(version)})
        for code, count in sorted(self._totals.errors.items()):
            families.add({"errors_total": count}, {"code": code})
        for code, count in sorted(self._totals.refused.items()):
            families.add({"refused_total": count}, {"code": code})
        for (stage, cause), count in self._totals.failures.items():
            families.add({"failures_total": count}, {"stage": stage, "cause": cause})
        families.add(self._totals.figures(running), {})
        now = time.monotonic()
        for connection in running:
            core = connection.core
            assert core is not None
            figures = core.latency.figures("session_latency_seconds") | {
                "session_fps": core.frame_rate.per_second(now),
                "session_clips_waiting": core.clips_waiting,
            }
            families.add(figures, {"session": core.name, "version": str(core.version)})
        return families

    def _stage_families(self) -> MetricFamilies:
        families = MetricFamilies(f"{PREFIX}stage_", STAGE_TEXTS, "Reported by the workers of a stage.")
        families.add(self._pcm_hop_figures(), {"stage": "gateway", "worker": "0"})
        for status in self._board.workers():
            labels = {"stage": status.stage, "worker": status.worker}
            families.add(status.metrics | {"warm": status.warm}, labels)
        return families
