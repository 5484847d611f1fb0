"""How torch's OpenMP threads wait, where several processes share a few cores."""

from __future__ import annotations

import os


def sleep_at_barriers() -> None:
    """Make OpenMP threads sleep while they wait for each other. Call it before torch is imported.

    By default they spin, so two processes with a thread for every core each burn the time slices that the
    other's late threads need: on two busy cores the bundled decoder took 3.2 s for a clip, and 0.32 s with
    threads that sleep. On idle cores the wake-ups cost too little to measure.
    """
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
