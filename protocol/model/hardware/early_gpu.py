"""Opens an NVIDIA GPU while torch is still being imported: each takes seconds, and neither needs the other.

The driver makes one context for a device and process, the primary one. Torch finds it there.
Importing this module does not import torch.
"""

from __future__ import annotations

import ctypes
import threading
from typing import Any

#: The driver's library.
LIBRARY = "libcuda.so.1"

#: The driver's number of an attribute, the first digit of the compute capability, and the least one that
#: torch's builds are made for. A context on an older card would only take its memory.
CAPABILITY_MAJOR, LEAST_MAJOR = 75, 7
#: The driver's number of the second digit.
CAPABILITY_MINOR = 76


def ordinal_of(name: str) -> int | None:
    """The number of the GPU that a device of the settings means, the leader's of a team. None: the CPU."""
    first = name.partition("+")[0]
    if first in ("auto", "cuda"):
        return 0
    kind, _, number = first.partition(":")
    return int(number) if kind == "cuda" and number.isdecimal() else None


def open_early(name: str) -> threading.Thread | None:
    """Begins to open the GPU that a device of the settings means, in a thread of its own.

    Nothing is said of a failure: whoever uses the device finds out.

    Returns:
        The thread, or None where no GPU is meant.
    """
    ordinal = ordinal_of(name)
    if ordinal is None:
        return None
    thread = threading.Thread(target=_open, args=(ordinal,), name="open-gpu", daemon=True)
    thread.start()
    return thread


def capability_of(name: str) -> int | None:
    """The compute capability of the GPU that a device of the settings means, such as 90 for 9.0.

    No context is made, so the GPU has no memory of this process. None: no GPU is meant, or none is there.
    """
    ordinal = ordinal_of(name)
    if ordinal is None:
        return None
    found = _find(ordinal)
    if found is None:
        return None
    major, minor = (_number(*found, attribute) for attribute in (CAPABILITY_MAJOR, CAPABILITY_MINOR))
    return None if major is None or minor is None else 10 * major + minor


def _open(ordinal: int) -> None:
    found = _find(ordinal)
    if found is None:
        return
    driver, device = found
    if (_number(driver, device, CAPABILITY_MAJOR) or 0) >= LEAST_MAJOR:
        driver.cuDevicePrimaryCtxRetain(ctypes.byref(ctypes.c_void_p()), device)


def _find(ordinal: int) -> tuple[Any, ctypes.c_int] | None:
    """The driver and its device, which is not opened. None: there is none."""
    try:
        driver = ctypes.CDLL(LIBRARY)
    except OSError:
        return None
    device = ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGet(ctypes.byref(device), ordinal) != 0:
        return None
    return driver, device


def _number(driver: Any, device: ctypes.c_int, attribute: int) -> int | None:
    value = ctypes.c_int()
    if driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device) != 0:
        return None
    return value.value
