"""The fields of the texts that tell a client of version 2 about its session."""

from __future__ import annotations

from gateway.core.session import SessionCore
from protocol.wire.phrases import coded


def ready_fields(core: SessionCore, notice: str, token: str, resumed: bool) -> dict[str, object]:
    """Fields of the `ready` text: the options that the session runs with, and the token to come back with."""
    options = core.options
    width, height = core.picture_size or (options.width, options.height)
    return {
        "session": core.name,
        "epoch": core.epoch,
        "avatar": options.avatar,
        "pose": options.pose,
        "fps": options.shape.fps,
        "clip_frames": options.shape.frames,
        "sample_rate": options.sample_rate,
        "width": width,
        "height": height,
        "notice": notice,
        "notice_phrase": coded(notice),
        "shown_within": core.limits.shown,
        "resume": token,
        "resumed": resumed,
        "position": core.received,
        "credit": core.credit,
        "pcm": "s16" if options.int16 else "f32",
        "video": options.codec,
        "voice_engine": core.says.engine,
        "saying": core.says.saying(),
    }


def status_fields(core: SessionCore, notice: str, stages: dict[str, int], now: float) -> dict[str, object]:
    """Fields of the `status` text, which goes out every second. `stages`: ms of clips in each stage."""
    latency = core.latency.figures("s")
    width, height = core.picture_size or (core.options.width, core.options.height)
    return {
        "epoch": core.epoch,
        "fps": core.fps,
        "fps_sent": round(core.frame_rate.per_second(now), 1),
        "width": width,
        "height": height,
        "notice": notice,
        "notice_phrase": coded(notice),
        "clips_waiting": core.clips_waiting,
        "seconds_waiting": round(core.input.seconds_waiting, 3),
        "seconds_faster": round(core.input.seconds_faster, 3),
        "seconds_left_out": round(core.input.seconds_left_out, 3),
        "frames_sent": core.frames_sent,
        "frames_late": core.frames_late,
        "frames_dropped": core.frames_dropped,
        "frames_lost": core.frames_lost,
        "lost_because": core.last_failure,
        "latency_ms": {
            name[2:]: round(latency[name] * 1000) for name in ("s_p50", "s_p95") if name in latency
        },
        "stages_ms": stages,
    }
