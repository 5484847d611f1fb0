"""Processor time and memory of processes and of the machine."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from scripts.run.start import module_of

#: Names in tables of modules that are no stage.
NAMES = {"scripts.run": "supervisor"}


@dataclass(frozen=True)
class Usage:
    """By stage: processor time used so far in seconds, and memory in bytes.

    `resident` (RSS) counts memory that several processes share, such as libraries' code, for each of them.
    `proportional` (PSS) divides it among them, so that it adds up.
    """

    processor: dict[str, float]
    resident: dict[str, int]
    proportional: dict[str, int]

    def spent_since(self, before: Usage) -> dict[str, float]:
        """Processor seconds by stage between the two. A process that began in between counts whole."""
        return {stage: used - before.processor.get(stage, 0.0) for stage, used in self.processor.items()}


def usage(pids: Iterable[int]) -> Usage:
    """The use of these processes and of all that they started.

    The processor time has that of ended processes where a descendant had started them and waited for them.
    """
    processor: dict[str, float] = {}
    resident: dict[str, int] = {}
    proportional: dict[str, int] = {}
    for top in pids:
        for pid, stage in family(top):
            try:
                process = psutil.Process(pid)
                times, memory = process.cpu_times(), process.memory_full_info()
            except psutil.Error:
                continue
            spent = times.user + times.system
            if pid != top:  # a worker's ended helpers count as its own; the supervisor's were stages
                spent += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
            processor[stage] = processor.get(stage, 0.0) + spent
            resident[stage] = resident.get(stage, 0) + memory.rss
            # Linux alone divides shared memory.
            proportional[stage] = proportional.get(stage, 0) + getattr(memory, "pss", memory.rss)
    return Usage(processor, resident, proportional)


def family(pid: int) -> list[tuple[int, str]]:
    """A process and its descendants, each with its stage: the module it runs, else its parent's stage."""
    stages: dict[int, str] = {}
    try:
        top = psutil.Process(pid)
        for process in (top, *top.children(recursive=True)):  # parents come before their children
            try:
                module = module_of(process.cmdline())
                inherited = stages.get(process.ppid(), "other")
            except psutil.Error:  # it ended
                continue
            stages[process.pid] = (
                inherited if module is None else NAMES.get(module, module.rpartition(".")[2])
            )
    except psutil.NoSuchProcess:
        pass
    return list(stages.items())


def resident_of(pid: int) -> int:
    """RSS of a process and all its descendants together, in bytes. It takes a few milliseconds."""
    whole = 0
    for each, _ in family(pid):
        with suppress(psutil.Error):  # it ended
            whole += psutil.Process(each).memory_info().rss
    return whole


def pages_read(pid: int) -> int:
    """Page faults for which a process had to wait for the disk, which psutil does not tell.

    Raises:
        OSError: the process has ended, or this is not Linux.
    """
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[9])


def wake_ups(pid: int) -> int:
    """How often the threads of a process and of its descendants have come to run. 0 where it is not told.

    Only differences mean something. The count of a thread goes when it ends.
    """
    whole = 0
    for each, _ in family(pid):
        for thread in Path(f"/proc/{each}/task").glob("*/schedstat"):
            with suppress(OSError, IndexError):  # it ended, or this is not Linux
                whole += int(thread.read_text().split()[2])
    return whole


def machine_busy() -> float:
    """Processor seconds that everything on this machine has used since it started."""
    times = psutil.cpu_times()
    return sum(getattr(times, kind, 0.0) for kind in ("user", "nice", "system", "irq", "softirq", "steal"))


def machine_stolen() -> float:
    """Processor seconds that a virtual machine's host has given to others (0 where it does not tell)."""
    return float(getattr(psutil.cpu_times(), "steal", 0.0))
