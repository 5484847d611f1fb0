"""How many OpenMP threads torch gets and how they wait, where several processes share a few cores."""

from __future__ import annotations

import os

from protocol.process.settings import Settings


def let_waiting_threads_sleep() -> None:
    """Make OpenMP threads sleep while they wait for each other. Call it before torch is imported.

    By default they spin. Two processes with a thread for every core then burn the time that the other's
    late threads need: on two busy cores the bundled decoder took 3.2 s for a clip, and 0.32 s with threads
    that sleep. On idle cores the wake-ups cost too little to measure.
    """
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"


def thread_count(settings: Settings) -> int:
    """Threads of a model process: `--threads`, else half of the cores it may use.

    Denoiser and decoder work at the same time. With a thread for every core in each, on two cores, both wait
    for the other at every operation's end: a clip took 1.6 s on a busy machine, and 0.3 s with one thread.
    """
    return settings.threads or max(1, len(os.sched_getaffinity(0)) // 2)
