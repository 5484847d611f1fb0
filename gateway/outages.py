"""Which stage has no worker, and the sentence about it that clients are told."""

from __future__ import annotations

from gateway.stages import STAGES, StageBoard
from protocol.wire.phrases import phrase

#: Stage → the sentence for the person who looks at the page.
OUTAGES = {stage: phrase(f"outage_{stage}") for stage in STAGES}


def outage_of(board: StageBoard) -> str:
    """The stage that has no warm worker, the first one upstream. Empty when every stage has one."""
    warm = board.warm_workers()
    return next((stage for stage in STAGES if not warm[stage]), "")
