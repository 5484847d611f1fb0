"""How the C library keeps memory that decoding frees and takes again a moment later."""

from __future__ import annotations

import ctypes

# Names and values of glibc's malloc.h; the first may not exceed 32 MB there.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_KEPT = 32 << 20
MOST_KEPT = 256 << 20


def keep_freed_memory() -> bool:
    """Have malloc reuse blocks of up to 32 MB instead of giving them back to the system each time.

    The feature maps of a frame are megabytes, so by default each of them is new memory, which the kernel
    clears page by page: 5,000 to 15,000 page faults a clip. Call it before threads are started.

    Returns whether the C library is one that can be told; elsewhere nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # not glibc: no such function, or no such library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST_KEPT)) and bool(mallopt(M_TRIM_THRESHOLD, MOST_KEPT))
