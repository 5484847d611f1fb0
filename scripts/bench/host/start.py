"""The start of the default run: until it is ready, until it is quiet, and the cost of waiting."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass

from scripts.bench.common.processes import Usage, usage, wake_ups
from scripts.bench.common.tools import MemoryPeak, UsageMeter, settle, table
from scripts.run.managed import ManagedRun

#: Seconds over which waiting is measured.
WAIT = 20.0
#: Pages that are touched to see how cold the caches are after a pause, bytes between them, and how often.
COLD_PAGES, PAGE_DISTANCE, COLD_TRIES = 256, 16384, 21
#: Most share of a core that all stages may use while nobody speaks.
MOST_QUIET = 0.03
#: Most seconds until the first start is ready, and the second.
MOST_READY = {"first": 20, "second": 10}
#: Most memory of all stages, in bytes of RSS.
MOST_MEMORY = 1e9


@dataclass(frozen=True)
class Start:
    """Figures of one start without speech.

    Attributes:
        name: "first" or "second".
        ready_in: seconds until every worker was warm.
        until_ready: processor seconds until then, by stage.
        resident: RSS just after that, by stage, in bytes.
        peak: the most RSS of all stages and their helpers together until then, in bytes.
        settled_in: seconds from ready until nothing was done any more.
        settling: processor seconds of that time, of all stages.
        waiting: share of a core that each stage uses after that.
        later: RSS and PSS of all stages after that, in bytes.
        others: cores that the rest of the machine used meanwhile.
        wakes: wake-ups a second of all threads while waiting.
        cold_page: as `measure_cold_page` says, before and after waiting.
    """

    name: str
    ready_in: float
    until_ready: dict[str, float]
    resident: dict[str, int]
    peak: int
    settled_in: float
    settling: float
    waiting: dict[str, float]
    later: tuple[int, int]
    others: float
    wakes: float
    cold_page: tuple[float, float]

    @property
    def quiet(self) -> bool:
        """Whether waiting costs no more than it may."""
        return sum(self.waiting.values()) <= MOST_QUIET


def measure_starts(flags: Sequence[str]) -> list[Start]:
    """Two starts with a home of their own: nothing is kept for the first, which keeps all for the second."""
    with tempfile.TemporaryDirectory(prefix="echomimic-home-") as home:
        return [measure_start(name, home, flags) for name in ("first", "second")]


def measure_start(name: str, home: str, flags: Sequence[str]) -> Start:
    """One start with this home."""
    environment = {**os.environ, "HOME": home}
    logs = ["--log-dir", f"{home}/logs"]
    started = ManagedRun(*flags, *logs, timeout=600, environment=environment)
    with MemoryPeak(started) as memory, started as run:
        peak = memory.stop()
        pids = [run.process.pid]
        ready, began = usage(pids), time.monotonic()
        settle(pids, 300.0)
        settled_in = time.monotonic() - began
        settled = usage(pids)
        page_before = measure_cold_page()
        with UsageMeter(pids) as meter:
            woken = wake_ups(run.process.pid)
            time.sleep(WAIT)
            woken = wake_ups(run.process.pid) - woken
        page_after = measure_cold_page()
    waiting = {stage: spent / WAIT for stage, spent in meter.spent.items()}
    return Start(
        name, run.ready_in, ready.processor, ready.resident, peak, settled_in, _between(ready, settled),
        waiting, (sum(meter.after.resident.values()), sum(meter.after.proportional.values())),
        meter.other_cores, woken / WAIT, (page_before, page_after),
    )  # fmt: skip


def measure_cold_page() -> float:
    """Seconds to touch a page of memory that was not touched for 0.1 s: the median of some tries.

    It is what a process pays that wakes seldom. On one machine it varies tenfold with what else its caches
    serve, on a virtual machine that of other tenants too.
    """
    memory, times = bytearray(COLD_PAGES * PAGE_DISTANCE), []
    for _ in range(COLD_TRIES):
        began = time.perf_counter()
        for place in range(0, len(memory), PAGE_DISTANCE):
            memory[place] = 1
        times.append((time.perf_counter() - began) / COLD_PAGES)
        time.sleep(0.1)
    return statistics.median(times[1:])  # the first one also gets the pages from the system


def _between(before: Usage, after: Usage) -> float:
    return sum(after.spent_since(before).values())


def lines(starts: Sequence[Start]) -> list[str]:
    """A table by stage and one of the whole."""
    rows = [
        ("stage", *[f"{start.name}: {what}" for start in starts for what in ("processor", "RSS", "waiting")])
    ]
    for stage in starts[-1].resident:
        cells = [
            cell
            for start in starts
            for cell in (
                f"{start.until_ready.get(stage, 0.0):.1f} s",
                f"{start.resident.get(stage, 0) / 2**20:.0f} MiB",
                f"{start.waiting.get(stage, 0.0):.2%}",
            )
        ]
        rows.append((stage, *cells))
    whole = [("the whole", *[start.name for start in starts])]
    bounds = ", ".join(f"{MOST_READY[start.name]} s" for start in starts)
    whole.append((f"ready after (most {bounds})", *[f"{start.ready_in:.1f} s" for start in starts]))
    whole.append(("processor time until then", *[f"{sum(s.until_ready.values()):.1f} s" for s in starts]))
    whole.append(("RSS then", *[f"{sum(s.resident.values()) / 2**20:.0f} MiB" for s in starts]))
    whole.append(("the most RSS until then", *[f"{start.peak / 2**20:.0f} MiB" for start in starts]))
    whole.append(("nothing is done after a further", *[f"{start.settled_in:.0f} s" for start in starts]))
    whole.append(("processor time of these", *[f"{start.settling:.1f} s" for start in starts]))
    whole.append(
        (
            f"waiting, share of a core (most {MOST_QUIET:.0%})",
            *[f"{sum(s.waiting.values()):.2%}" for s in starts],
        )
    )
    most = f"RSS then (most {MOST_MEMORY / 2**20:.0f} MiB)"
    whole.append((most, *[f"{start.later[0] / 2**20:.0f} MiB" for start in starts]))
    whole.append(("PSS then", *[f"{start.later[1] / 2**20:.0f} MiB" for start in starts]))
    whole.append(("wake-ups a second of all threads", *[f"{start.wakes:.0f}" for start in starts]))
    pages = [", ".join(f"{1e6 * seconds:.1f}" for seconds in start.cold_page) for start in starts]
    whole.append(("touching a cold page, before and after", *[f"{page} us" for page in pages]))
    whole.append(("others meanwhile", *[f"{start.others:.2f} cores" for start in starts]))
    return [*table(rows), "", *table(whole)]
