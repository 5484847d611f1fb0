"""What processes use, from /proc: processor time and memory."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from scripts.run.start import module_of

#: How a module that is no stage is called in tables.
NAMES = {"scripts.run": "supervisor"}
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """By stage: processor time used so far in seconds, and memory in bytes.

    `resident` (RSS) counts memory that several processes share, such as libraries' code, for each of them;
    `proportional` (PSS) divides it among them, so that it adds up.
    """

    processor: dict[str, float]
    resident: dict[str, int]
    proportional: dict[str, int]

    def spent_since(self, before: Usage) -> dict[str, float]:
        """Processor seconds by stage between the two; what began in between counts whole."""
        return {stage: used - before.processor.get(stage, 0.0) for stage, used in self.processor.items()}


def usage(pids: Iterable[int]) -> Usage:
    """What these processes and all that they started use; those that have ended are left out."""
    processor: dict[str, float] = {}
    resident: dict[str, int] = {}
    proportional: dict[str, int] = {}
    for top in pids:
        for pid, stage in family(top):
            try:
                figures = (cpu_seconds(pid), *memory(pid))
            except OSError:
                continue
            processor[stage] = processor.get(stage, 0.0) + figures[0]
            resident[stage] = resident.get(stage, 0) + figures[1]
            proportional[stage] = proportional.get(stage, 0) + figures[2]
    return Usage(processor, resident, proportional)


def family(pid: int, parent: str = "other") -> list[tuple[int, str]]:
    """A process and its descendants, each with its stage: what it runs as a module, else its parent's."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").split("\0")
    except OSError:
        return []
    module = module_of(words)
    stage = parent if module is None else NAMES.get(module, module.rpartition(".")[2])
    found = [(pid, stage)]
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [one for word in file.read_text().split() for one in family(int(word), stage)]
        except OSError:  # it ended
            pass
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of all its threads."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS


def pages_read(pid: int) -> int:
    """Page faults for which it had to wait for the disk."""
    return int(_stat(pid)[9])


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the third on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def memory(pid: int) -> tuple[int, int]:
    """(RSS, PSS) in bytes; the first for both where the kernel does not tell the second."""
    kinds: dict[str, int] = {}
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name, _, rest = line.partition(":")
            if name in ("Rss", "Pss"):
                kinds[name] = int(rest.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        kinds = {}
    if "Rss" not in kinds:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        kinds["Rss"] = pages * os.sysconf("SC_PAGE_SIZE")
    return kinds["Rss"], kinds.get("Pss", kinds["Rss"])


def machine_busy() -> float:
    """Processor seconds that everything on this machine has used since it started."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    user, nice, system, _idle, _wait, irq, soft_irq, stolen = (int(word) for word in words[1:9])
    return (user + nice + system + irq + soft_irq + stolen) / TICKS
