"""Which stage has no worker, and the sentence about it that clients are told."""

from __future__ import annotations

from gateway.stages import STAGES, StageBoard

#: Stage → the sentence for the person who looks at the page.
OUTAGES = {
    "audio_worker": "The part that listens stopped and is starting again. The sound goes on.",
    "gpu_worker": "The face model stopped and is starting again. The sound goes on.",
    "encoder_worker": "The part that draws stopped and is starting again. The sound goes on.",
}


def outage_of(board: StageBoard) -> str:
    """The stage that has no warm worker, the first one upstream. Empty when every stage has one."""
    warm = board.warm_workers()
    return next((stage for stage in STAGES if not warm[stage]), "")
