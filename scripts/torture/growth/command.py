"""What grows in each process for a thousand of its events.

    python -m scripts.torture growth
    python -m scripts.torture growth --process encoder_worker --events 4000

An event is a clip of a worker, or a session of the gateway. Their lengths, rates, codecs, avatars and
sessions change all the time. Each process runs its own code by itself, as fast as it goes, so minutes show
what a soak shows in hours. The first half of the events does not count.

For the workers the C library tells memory that is in use from memory that was freed. Growth in use is a leak
or a cache, and the caches' own figures tell which. Exit status: 0 if nothing in use grows, 1
if something does.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from protocol.process.c_allocator import keep_freed_memory, return_freed_memory
from protocol.process.settings import load_settings
from protocol.wire.clock import FULL_RATE
from scripts.run.managed import ROOT
from scripts.torture.growth.gateway import gateway_process, many_sessions
from scripts.torture.growth.memory import MemoryLook, look
from scripts.torture.growth.workers import LENGTHS, Events, audio_events, encoder_events, gpu_events
from scripts.torture.slope import Slope, slope

#: The workers' events by process, and whether it keeps freed memory as its own start does.
WORKERS: dict[str, tuple[Callable[..., Events], bool]] = {
    "audio_worker": (audio_events, False),
    "gpu_worker": (gpu_events, False),
    "encoder_worker": (encoder_events, True),
}
GATEWAY = "gateway"
#: Looks at a process.
LOOKS = 40
#: Most MB in use that a thousand events may leave: 50 bytes an event.
MOST_IN_USE = 0.05
#: The same for all of the gateway's resident memory: 10 KB a session.
MOST_RESIDENT = 10.0
#: Events between two returns of freed memory: the clips of two sessions in a minute.
EVENTS_A_MINUTE = 2 * 60 * FULL_RATE // LENGTHS[0]


def measure_worker(name: str, events: int) -> None:
    """Let a worker's events happen in this process, and print looks at it as JSON, one a line."""
    make, keeps = WORKERS[name]
    if keeps:
        keep_freed_memory()
    for number, kept in enumerate(itertools.islice(make(load_settings([])), events)):
        if number % EVENTS_A_MINUTE == 0:
            return_freed_memory()
        if number % max(1, events // LOOKS) == 0:
            print(look(number, kept).line(), flush=True)


def looks_at_worker(name: str, events: int) -> list[MemoryLook]:
    """Measure a worker in a process of its own."""
    command = [sys.executable, "-m", "scripts.torture", "growth", "--within", name, "--events", str(events)]
    done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    return [
        MemoryLook(**json.loads(line)) for line in done.stdout.splitlines() if line.startswith('{"events"')
    ]


def looks_at_gateway(events: int) -> list[MemoryLook]:
    """Measure a gateway from outside: its resident memory alone."""
    looks = []
    with gateway_process() as (address, process):
        for number in range(0, events, max(1, events // LOOKS)):
            served = asyncio.run(many_sessions(address, max(1, events // LOOKS)))
            if not served:
                raise RuntimeError("no session had a picture")
            looks.append(MemoryLook(number, process.memory_info().rss / 1e6, 0.0, 0.0, 0.0, 0.0))
    return looks


def growth_of(looks: Sequence[MemoryLook], figure: str) -> Slope:
    """Growth of a figure for a thousand events, over the second half."""
    half = looks[len(looks) // 2 :]
    each = half[1].events - half[0].events
    return slope([(one.events, getattr(one, figure)) for one in half], each).times(1000)


def report(name: str, looks: Sequence[MemoryLook], seconds: float) -> bool:
    """Print a process's line. Returns whether it keeps its limit."""
    resident, other, blocks = (growth_of(looks, figure) for figure in ("resident", "other", "blocks"))
    first, last = looks[0], looks[-1]
    print(
        f"{name:15s} {last.events:6d} events in {seconds:4.0f} s: resident {first.resident:.1f} →"
        f" {looks[len(looks) // 2].resident:.1f} → {last.resident:.1f} MB; for each 1,000 events"
        f" {resident.middle:+.3f} MB ({resident.low:+.3f} to {resident.high:+.3f})",
        flush=True,
    )
    if name == GATEWAY:
        return resident.middle < MOST_RESIDENT
    caches = f"caches {first.kept:.1f} → {last.kept:.1f} MB"
    print(
        f"{'':15s} in use {first.in_use:.1f} → {last.in_use:.1f} MB, {caches}, all else"
        f" {other.middle:+.3f} MB ({other.low:+.3f} to {other.high:+.3f}); freed {last.free:.1f} MB;"
        f" Python's blocks {1000 * blocks.middle:+.0f}",
        flush=True,
    )
    return other.middle < MOST_IN_USE


def main(argv: Sequence[str] | None = None) -> int:
    """Measure each process that is named. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.torture growth", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--process", choices=(GATEWAY, *WORKERS), nargs="*", default=[GATEWAY, *WORKERS])
    parser.add_argument("--events", type=int, default=2000)
    parser.add_argument("--within", choices=tuple(WORKERS), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.within:
        measure_worker(args.within, args.events)
        return 0
    held = True
    for name in args.process:
        began = time.monotonic()
        looks = looks_at_gateway(args.events) if name == GATEWAY else looks_at_worker(name, args.events)
        held &= report(name, looks, time.monotonic() - began)
    return 0 if held else 1
