"""How the C library keeps memory that decoding frees and takes again a moment later."""

from __future__ import annotations

import ctypes

# Names and values of glibc's malloc.h; the first may not exceed 32 MB there.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3

#: Largest block that malloc takes from its own memory, in bytes. The kernel maps larger ones.
LARGEST_KEPT = 32 << 20
#: Free bytes that malloc keeps at the end of its memory before it returns them to the system.
MOST_KEPT = 256 << 20


#: Seconds between two returns of freed memory while a process serves.
RETURN_EVERY = 60.0


def return_freed_memory() -> bool:
    """Have malloc return all memory that was freed to the system.

    Loading and converting a model takes and frees hundreds of megabytes, in blocks among those that stay.
    While a process serves, its busiest moments leave such blocks too: each thread has memory of its own,
    which only grows. So a process also calls this each `RETURN_EVERY` seconds. That takes 1 to 3 ms, and
    up to 50 ms on a machine that is busy with other work.

    Returns:
        Whether the C library can be told so. Elsewhere nothing changes.
    """
    try:
        malloc_trim = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError, TypeError):
        return False
    malloc_trim(0)
    return True


class ReturnTimer:
    """Says when freed memory is to be returned again: at once, and then each `RETURN_EVERY` seconds."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def is_due(self, now: float) -> bool:
        """Whether it is time. The next time counts from a yes on.

        Args:
            now: seconds of a clock that never runs backwards.
        """
        if now - self._last < RETURN_EVERY:
            return False
        self._last = now
        return True


def keep_freed_memory() -> bool:
    """Have malloc reuse blocks of up to 32 MB instead of returning them to the system each time.

    The feature maps of a frame are megabytes, so by default each of them is new memory. The kernel clears
    it page by page: 5,000 to 15,000 page faults a clip. Call it before threads are started.

    Returns:
        Whether the C library can be told so. Elsewhere nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc: no such function, or no such library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)) and bool(mallopt(M_TRIM_THRESHOLD, MOST_KEPT))
