"""The text of /metrics: the gateway's sessions, its hop, and what every stage says of itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping

from gateway.connection import Connection
from gateway.prometheus import Exposition
from gateway.stages import StageBoard

PREFIX = "echomimic_"
#: Counters of a session that add up over all sessions: name → help.
TOTALS = {
    "frames_sent": "Pictures sent to clients.",
    "frames_late": "Pictures that were not there when it was their turn.",
    "frames_dropped": "Pictures dropped for clients that were too slow.",
    "frames_lost": "Pictures that never came.",
    "duplicates": "Frames dropped as doubled or out of date.",
    "clips_done": "Clips played out.",
    "clips_failed": "Clips with pictures missing.",
}
QUANTILES = {"p50": "0.5", "p95": "0.95", "p99": "0.99"}


def retire(counts: Counter[str], connection: Connection) -> None:
    """Add a session that ends to the totals."""
    assert connection.core is not None
    for name in TOTALS:
        counts[name] += getattr(connection.core, name)
    counts["bytes_in"] += connection.bytes_in
    counts["bytes_out"] += connection.bytes_out


def text(
    counts: Counter[str], live: Iterable[Connection], hop: Mapping[str, float], board: StageBoard
) -> str:
    """Everything, in Prometheus text format. `counts` are of ended sessions, `hop` the pcm hop's figures."""
    sessions = list(live)
    out = Exposition()
    out.add(PREFIX + "sessions", len(sessions), text="Sessions running.")
    out.add(PREFIX + "ready", board.ready, text="1 when every stage is warm.")
    for version in (1, 2):
        out.add(PREFIX + "sessions_total", counts[f"sessions_v{version}"], {"version": str(version)})
    for name in sorted(counts):
        if name.startswith("error_"):
            out.add(PREFIX + "errors_total", counts[name], {"code": name[6:]})
    for name, what in TOTALS.items():
        value = counts[name] + sum(getattr(c.core, name) for c in sessions)
        out.add(f"{PREFIX}{name}_total", value, text=what)
    out.add(PREFIX + "received_bytes_total", counts["bytes_in"] + sum(c.bytes_in for c in sessions))
    out.add(PREFIX + "sent_bytes_total", counts["bytes_out"] + sum(c.bytes_out for c in sessions))
    for connection in sessions:
        _session(out, connection)
    _figures(out, {"stage": "gateway", "worker": "0"}, hop)
    for status in board.workers():
        labels = {"stage": status.stage, "worker": status.worker}
        out.add(PREFIX + "stage_warm", status.warm, labels)
        _figures(out, labels, status.metrics)
    return out.text()


def _session(out: Exposition, connection: Connection) -> None:
    core = connection.core
    assert core is not None
    labels = {"session": core.name, "version": str(core.version)}
    figures = core.latency.figures("latency")
    for name, quantile in QUANTILES.items():
        if f"latency_{name}" in figures:
            out.add(
                PREFIX + "session_latency_seconds",
                figures[f"latency_{name}"],
                {**labels, "quantile": quantile},
                "From a clip's last sample received to its first picture sent.",
            )
    out.add(PREFIX + "session_fps", core.frame_rate.value(time.monotonic()), labels)
    out.add(PREFIX + "session_clips_waiting", core.clips_waiting, labels)


def _figures(out: Exposition, labels: dict[str, str], figures: Mapping[str, float]) -> None:
    for name, value in figures.items():
        base, _, quantile = name.rpartition("_")
        if quantile in QUANTILES:
            out.add(f"{PREFIX}stage_{base}", value, {**labels, "quantile": QUANTILES[quantile]})
        else:
            out.add(f"{PREFIX}stage_{name}", value, labels)
