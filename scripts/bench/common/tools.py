"""Helpers of the benchmark's parts: machine, cores, a run on some of them, speaking to it, tables."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from scripts.bench.common.processes import Usage, machine_busy, resident_of, usage
from scripts.run.managed import ROOT, ManagedRun, RunError

#: Flags of runs that measure the cost of clips: pauses in the speech are denoised, too.
EVERY_CLIP = ("--silence", "denoise")
#: Cores in use by all stages together under which they have nothing more to do.
SETTLED = 0.15

#: Seconds between two looks at the memory of a run that starts.
LOOK_EVERY = 0.2

#: Share of the cores that other processes, the client among them, may use beside a measurement.
NOISY = 0.15


class UsageMeter:
    """Measures the use of some processes, and of the rest of the machine, during its `with` block."""

    #: Processor seconds of the processes, by stage.
    spent: dict[str, float]
    #: Use of the processes at the end of the block, their memory included.
    after: Usage
    #: Cores that all other processes of the machine used.
    other_cores: float

    def __init__(self, pids: Sequence[int]) -> None:
        self._pids = pids

    def __enter__(self) -> UsageMeter:
        self._used, self._busy, self._began = usage(self._pids), machine_busy(), time.monotonic()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.after = usage(self._pids)
        self.spent = self.after.spent_since(self._used)
        busy, wall = machine_busy() - self._busy, time.monotonic() - self._began
        self.other_cores = max(0.0, (busy - sum(self.spent.values())) / wall)


class MemoryPeak:
    """Looks for the most memory of a run while it starts, in a thread, from its `with` block on.

    Args:
        run: that is started in the block.
    """

    def __init__(self, run: ManagedRun) -> None:
        self._run = run
        self._most = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, name="memory-peak", daemon=True)

    def __enter__(self) -> MemoryPeak:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def stop(self) -> int:
        """Ends the search. Returns the most RSS of all processes together, in bytes."""
        self._ended.set()
        self._thread.join()
        return self._most

    def _look(self) -> None:
        while not self._ended.wait(LOOK_EVERY):
            process = getattr(self._run, "process", None)  # it has none before it is started
            if process is not None:
                self._most = max(self._most, resident_of(process.pid))


def machine() -> str:
    """The machine and the versions that the figures belong to."""
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{cpu}, {cores()} cores{gpu}, Python {platform.python_version()}, torch {torch.__version__}"


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


@contextmanager
def only_cores(count: int | None) -> Iterator[None]:
    """Programs started in the block may use the first `count` of this process's cores (None: all) alone."""
    before = os.sched_getaffinity(0)
    if count is not None:
        os.sched_setaffinity(0, set(sorted(before)[:count]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def run_on(count: int | None, *flags: str) -> Iterator[ManagedRun]:
    """A run on `count` cores, or on all (None). This process and its other children still use every core."""
    with only_cores(count):
        run = ManagedRun(*flags, timeout=600)
        run.__enter__()
    try:
        yield run
    finally:
        run.__exit__()


def warm_up(run: ManagedRun, wav: Path, bound: float = 120.0) -> None:
    """Speak the first clips of a run, which are not typical, and wait until it has settled."""
    speak(run, wav, seconds=2.0)
    settle([run.process.pid], bound)


def speak(
    run: ManagedRun, wav: Path, *, seconds: float = 0.0, sessions: int = 1, apart: float = 0.0
) -> list[dict[str, Any]]:
    """Speak to a run with the command-line client in a process of its own. Returns the client's reports."""
    command = [sys.executable, "-m", "scripts.talk", str(wav), "--url", run.url, "--v2", "--json"]
    command += ["--sessions", str(sessions), *(["--seconds", str(seconds)] if seconds else [])]
    command += ["--apart", str(apart)] if apart else []
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode not in (0, 1):
        raise RunError(f"the client failed: {done.stderr.strip()}")
    reports: list[dict[str, Any]] = json.loads(done.stdout)
    return reports


def settle(pids: Sequence[int], bound: float = 60.0) -> None:
    """Wait until these processes are idle, because a run prepares things in its first pause."""
    quiet, deadline = 0, time.monotonic() + bound
    before = sum(usage(pids).processor.values())
    while quiet < 5 and time.monotonic() < deadline:  # a pause begins after seconds of silence
        time.sleep(1.0)
        now = sum(usage(pids).processor.values())
        quiet = quiet + 1 if now - before < SETTLED else 0
        before = now


def table(rows: Sequence[Sequence[str]], *, left: int = 1) -> list[str]:
    """Rows of a table as aligned lines, with the first `left` columns flush left."""
    widths = [max(len(row[i]) for row in rows if i < len(row)) for i in range(max(map(len, rows)))]
    return [
        "  "
        + "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]


def ms(seconds: float) -> str:
    """Seconds as text in milliseconds."""
    return f"{seconds * 1e3:.1f} ms"
