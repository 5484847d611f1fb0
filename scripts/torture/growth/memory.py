"""The memory of this process: resident, in use and free in the C library, and Python's objects."""

from __future__ import annotations

import ctypes
import gc
import json
import sys
from dataclasses import asdict, dataclass

from protocol.process.stage import resident_bytes

#: Fields of glibc's `struct mallinfo2`, all of them size_t.
FIELDS = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd",
    "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
)  # fmt: skip


class MallocInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`, summed over all of its arenas."""

    _fields_ = [(name, ctypes.c_size_t) for name in FIELDS]


@dataclass(frozen=True)
class MemoryLook:
    """One look. Sizes in MB. Those of the C library are 0 where it does not tell them."""

    events: int
    resident: float
    #: Of the C library: blocks in use, mapped ones too, and blocks that were freed. Some of these were
    #: returned to the system.
    in_use: float
    free: float
    #: Python's blocks of memory, in thousands. Most objects are one.
    blocks: float
    #: Caches with a bound of their own.
    kept: float

    @property
    def other(self) -> float:
        """In use, without the caches."""
        return self.in_use - self.kept

    def line(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))


def look(events: int, kept_bytes: float = 0.0) -> MemoryLook:
    """This process now.

    Args:
        events: that were handled so far.
        kept_bytes: of its bounded caches.
    """
    gc.collect()
    info = _malloc_info()
    in_use, free = info.uordblks + info.hblkhd, info.fordblks
    resident, blocks = resident_bytes(), sys.getallocatedblocks()
    return MemoryLook(events, resident / 1e6, in_use / 1e6, free / 1e6, blocks / 1e3, kept_bytes / 1e6)


def _malloc_info() -> MallocInfo:
    try:
        ask = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError, TypeError):  # not glibc, or one before 2.33
        return MallocInfo()
    ask.restype = MallocInfo
    info: MallocInfo = ask()
    return info
