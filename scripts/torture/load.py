"""A machine that is slowed down, and one that is busy at the start: the rate, the delay and the pictures."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from protocol.wire.messages import Samples
from scripts.run.managed import ManagedRun
from scripts.torture.faults import Figure, Trial, Viewing, common_figures, worker_pids
from scripts.torture.viewer import ViewedStream

#: Seconds for which a worker is stopped, and then runs, while the machine is at half speed.
SLICE = 0.04
STAGES = ("audio_worker", "gpu_worker", "encoder_worker")
#: Seconds beyond the usual delay of the sound from which the machine is behind.
BEHIND = 0.3
#: Busy loops on each core.
LOOPS = 4
#: Seconds for a rate to rise after the load is gone.
SETTLES = 30.0


@contextmanager
def half_speed(pids: list[int]) -> Iterator[None]:
    """Stop the processes for half of the time of the block, in slices (SIGSTOP, SIGCONT)."""
    over = threading.Event()

    def alternate() -> None:
        while not over.wait(SLICE):
            _send(pids, signal.SIGSTOP)
            over.wait(SLICE)
            _send(pids, signal.SIGCONT)

    thread = threading.Thread(target=alternate, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _send(pids, signal.SIGCONT)


def _send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


@contextmanager
def busy_cores(loops: int) -> Iterator[None]:
    """Keep so many loops running for the time of the block, at this process's priority."""
    with ExitStack() as stack:
        for _ in range(loops):
            # Linux shares the cores between sessions of processes, and each worker has one of its own.
            process = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
            stack.callback(process.wait)
            stack.callback(process.kill)
        yield


def slow_machine(
    voice: Samples, *flags: str, seconds: float = 16.0, before_it: float = 8.0, after_it: float = 12.0
) -> list[Figure]:
    """All workers get half of the time for 16 s: each is stopped for 40 ms, then runs for 40 ms."""
    with ManagedRun(*flags) as run:
        pids = [pid for stage in STAGES for pid in worker_pids(run, stage)]
        with Viewing(run.url, voice) as viewing:
            time.sleep(before_it)
            began = time.monotonic()
            before = viewing.stream.status()["fps"]
            with half_speed(pids):
                time.sleep(seconds)
            ended = time.monotonic()
            time.sleep(after_it)
    stream = viewing.stream
    delays = sound_delays(stream, began, ended)
    clips = clips_between(stream, began, ended)
    lower = min(fps for at, fps in rates(stream) if at > began)
    return [
        Figure("frames a second before", before, None, "fps"),
        Figure("frames a second, least", lower, None, "fps"),
        Figure("from speech to sound, median", statistics.median(delays)),
        Figure("from speech to sound, most", max(delays), 2.0),
        Figure(f"clips without pictures, of {len(clips)}", without_pictures(stream, clips), 0, "n"),
        Figure("longest gap between two pictures", stream.picture_gap(began)),
        Figure("told after it fell behind", told_after(stream, began, ended), 1.0),
        Figure("from speech to sound 2 s after, most", max(sound_delays(stream, ended + 2, ended + 99)), 1.0),
        Figure("the rate is back after", rate_back(stream, before, ended), 10.0),
        *common_figures(stream, began),
    ]


def busy_start(voice: Samples, *flags: str) -> list[Figure]:
    """The run starts beside four busy loops on each core, which end when it is ready."""
    with ExitStack() as stack:
        with busy_cores(LOOPS * len(os.sched_getaffinity(0))):
            run = stack.enter_context(ManagedRun(*flags, timeout=400.0))
            at_start = held_rate(run)
        since = time.monotonic()
        with Viewing(run.url, voice) as viewing:
            best, rose = at_start, 0.0
            while time.monotonic() - since < SETTLES and best < 24:
                time.sleep(0.2)
                if (rate := held_rate(run)) > best:
                    best, rose = rate, time.monotonic() - since
            afterwards = held_rate(run)
    with ManagedRun(*flags, timeout=400.0) as run:
        quiet = held_rate(run)
    return [
        Figure("frames a second, chosen beside the loops", at_start, None, "fps"),
        Figure("frames a second, afterwards", afterwards, None, "fps"),
        Figure("the highest rate came after", rose),
        Figure("frames a second fewer than after a quiet start", max(0, quiet - afterwards), 0, "fps"),
        *common_figures(viewing.stream, since),
    ]


def held_rate(run: ManagedRun) -> int:
    """The rate that the run says it holds now."""
    with urllib.request.urlopen(f"{run.url}/avatars.json", timeout=5) as answer:
        return int(json.load(answer)["fps"])


def sound_delays(stream: ViewedStream, since: float, until: float) -> list[float]:
    """From each clip's last sample spoken to its sound's arrival, of the sounds that come in this time.

    A client whose buffer was once empty plays everything later until a pause. That is not counted here.
    """
    return [
        sound.came - stream.spoken_at(sound) for sound in stream.sounds if since < sound.came < until
    ] or [float("inf")]


def told_after(stream: ViewedStream, began: float, ended: float) -> float:
    """Seconds from the first sound that came 0.3 s later than usual to the notice. 0 if none did."""
    usual = statistics.median(sound_delays(stream, 0.0, began))
    late = (
        sound.came
        for sound in stream.sounds
        if began < sound.came < ended and sound.came - stream.spoken_at(sound) > usual + BEHIND
    )
    return max(0.0, began + stream.told("busy", began) - first) if (first := next(late, 0.0)) else 0.0


def clips_between(stream: ViewedStream, since: float, until: float) -> set[tuple[int, int]]:
    """Epoch and number of the clips whose sound was heard in this time."""
    return {
        (sound.message.epoch, sound.message.seq) for sound in stream.sounds if since < sound.start < until
    }


def without_pictures(stream: ViewedStream, clips: set[tuple[int, int]]) -> int:
    """How many of the clips had no picture on the screen."""
    return len(clips - {place[:2] for _, place in stream.shown})


def rates(stream: ViewedStream) -> list[tuple[float, int]]:
    """Time and rate of each `status`."""
    return [(at, text["fps"]) for at, text in stream.texts if text["type"] == "status"]


def rate_back(stream: ViewedStream, before: int, since: float) -> float:
    """Seconds from `since` until the rate of before is there again, for good."""
    lower = [at for at, fps in rates(stream) if at > since and fps < before]
    if not lower:
        return 0.0
    return next((at - since for at, _ in rates(stream) if at > lower[-1]), float("inf"))


TRIALS: dict[str, Trial] = {"half-speed": slow_machine, "busy-start": busy_start}
