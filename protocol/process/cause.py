"""Says in words why a process ended, by its exit status, its last lines and the kernel's count of kills."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from pathlib import Path

_VMSTAT = Path("/proc/vmstat")
#: Longest text that is taken from a process's own lines.
MAX_WORDS = 300
# A line that tells of a failure: of the stages' own logging, or the last one of a traceback.
_FAILURE = re.compile(r"\b(ERROR|CRITICAL)\b|^(\w+\.)*\w*(Error|Exception|Interrupt)\b")
_PREFIX = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} [A-Z]+ \S+ \S+: ")
# What libraries say when memory is short, the GPU's first: PyTorch's type for it is an OutOfMemoryError too.
_SHORTAGES = (
    (
        re.compile(r"(CUDA|HIP|cuDNN|CUBLAS)\b.*(out of memory|ALLOC_FAILED|memoryallocation)", re.I),
        "out of GPU memory",
    ),
    (
        re.compile(r"MemoryError|bad_alloc|cannot allocate memory|can't allocate memory|out of memory", re.I),
        "out of memory",
    ),
    (re.compile(r"No space left on device|\[Errno 28\]|Disk quota exceeded"), "the disk is full"),
)


def describe_end(status: int, lines: Sequence[str], oom_kills: int | None = None) -> str:
    """How a process ended, and why as far as that is known.

    Args:
        status: its exit status, −n for signal n.
        lines: the last lines that it printed.
        oom_kills: processes that the kernel killed for want of memory while this one ran. None: not known.

    Returns:
        Such as "status 1, out of GPU memory: CUDA out of memory. Tried to allocate 2.00 GiB".
    """
    how = describe_status(status)
    if status == -signal.SIGKILL:  # it could say nothing any more
        if oom_kills:
            return f"{how}: killed, probably for lack of memory (the kernel killed a process for that)"
        if oom_kills is None:
            return f"{how}: killed, probably for lack of memory"
        return f"{how}: killed from outside, which the kernel did not do for lack of memory"
    failures = [line for line in lines if _FAILURE.search(line)]
    for pattern, name in _SHORTAGES:
        for line in reversed(failures):
            if pattern.search(line):
                return f"{how}, {name}: {_words_of(line)}"
    return f"{how}: {_words_of(failures[-1])}" if failures else how


def describe_status(status: int) -> str:
    """Say a process's exit status in words: `status 1` or `signal 9 (SIGKILL)`."""
    if status >= 0:
        return f"status {status}"
    try:
        return f"signal {-status} ({signal.Signals(-status).name})"
    except ValueError:
        return f"signal {-status}"


def count_oom_kills() -> int | None:
    """Processes that the kernel has killed for want of memory since it booted, on Linux. None: not known.

    Kills at a container's limit count too.
    """
    try:
        text = _VMSTAT.read_text(encoding="ascii")
    except OSError:
        return None
    found = re.search(r"^oom_kill (\d+)$", text, re.M)
    return int(found[1]) if found else None


def _words_of(line: str) -> str:
    """The message of a line, without its date and its traceback."""
    words = _PREFIX.sub("", line).rpartition(" | ")[2].strip()
    return words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]}…"
