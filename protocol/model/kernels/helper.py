"""The process that compiles a worker's Triton kernels ahead: it lists them without launching any.

The worker's own code runs on tensors without values (torch's meta device). Triton makes each launch's
specialization as always and asks a hook before it compiles. The hook hands the specialization to a pool of
processes, and nothing is launched. So the list cannot differ from the code, and the worker finds each kernel
in Triton's own folder of compiled code.
"""

from __future__ import annotations

import ctypes
import importlib
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from multiprocessing.pool import AsyncResult, Pool
from queue import SimpleQueue
from typing import Any

from protocol.model.hardware.early_gpu import capability_of
from protocol.model.kernels.lines import END, FAILED, FOLDER, part_line
from protocol.process.logs import first_line

logger = logging.getLogger(__name__)

#: Most processes that compile.
MOST_PROCESSES = 12

#: Bytes of free memory for each of them, of which it takes about a half.
PROCESS_MEMORY = 400 << 20

#: Linux' number for "send me this signal when my parent ends", of prctl(2).
PR_SET_PDEATHSIG = 1

#: A part's name, and what launches its kernels on tensors without values.
Part = tuple[str, Callable[[], object]]

#: Tells a line.
Tell = Callable[[str], None]


class UnopenedDriver:
    """Triton's driver of a GPU that is not opened.

    Args:
        capability: of the GPU, such as 90.
    """

    def __init__(self, capability: int) -> None:
        from triton.backends.compiler import GPUTarget

        self._target = GPUTarget("cuda", capability, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> Any:
        return self._target


def run_helper(parts: Callable[[int], Iterable[Part]], device: str, workers: int) -> None:
    """Compiles the kernels of all parts, and tells on stdout which parts are done.

    Args:
        parts: of a compute capability, such as 90.
        device: that the worker computes on, as the settings name it.
        workers: of this kind, each of which has a helper on its first start.
    """
    _end_with_parent()
    capability = capability_of(device)
    if capability is None:
        return
    try:
        compile_parts(parts(capability), capability, _processes(max(1, workers)), _tell)
    except Exception as error:  # the worker compiles what is missing
        _tell(FAILED + first_line(error))


def _processes(workers: int) -> int:
    """How many compile, where each of so many workers has a helper."""
    processors = len(os.sched_getaffinity(0)) - 2
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return max(1, min(MOST_PROCESSES, processors // workers, free // PROCESS_MEMORY // workers))


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def compile_parts(parts: Iterable[Part], capability: int, processes: int, tell: Tell) -> None:
    """Compiles the kernels that the parts launch. Triton is of no other use in this process afterwards.

    A kernel that cannot be compiled is left to the worker, which knows what to do then.

    Args:
        parts: those that are needed first come first.
        capability: of the GPU, such as 90.
        processes: that compile.
        tell: is told each part that is done, then Triton's folder, then the end.
    """
    from triton import knobs
    from triton.runtime import driver

    driver.set_active(UnopenedDriver(capability))
    # Processes, since Triton's compiler holds the interpreter for half of its time. Forked, since they need
    # what was imported here.
    with multiprocessing.get_context("fork").Pool(processes, _begin) as pool:
        done: SimpleQueue[tuple[str, list[AsyncResult[None]]] | None] = SimpleQueue()
        teller = threading.Thread(target=_tell_parts, args=(done, tell))
        teller.start()
        notes = _Notes(pool)
        knobs.runtime.jit_cache_hook = notes
        try:
            for name, launch in parts:
                launch()
                done.put((name, notes.take()))
        finally:
            knobs.runtime.jit_cache_hook = None
            done.put(None)
            teller.join()
    tell(FOLDER + str(knobs.cache.dir))
    tell(END)


def _tell_parts(done: SimpleQueue[tuple[str, list[AsyncResult[None]]] | None], tell: Tell) -> None:
    while (part := done.get()) is not None:
        name, results = part
        for result in results:
            result.wait()
        tell(part_line(name, len(results)))


class _Notes:
    """Triton's hook before it compiles: has a process compile the kernel. Each one once.

    Args:
        pool: the processes.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._known: set[str] = set()
        self._results: list[AsyncResult[None]] = []

    def __call__(self, **launch: Any) -> bool:
        data, function = launch["compile"]["specialization_data"], launch["fn"]
        if data not in self._known:
            self._known.add(data)
            self._results.append(self._pool.apply_async(_compile, (function.module, function.name, data)))
        return True  # nothing is compiled here, and so nothing is launched

    def take(self) -> list[AsyncResult[None]]:
        """The kernels since the last call."""
        taken, self._results = self._results, []
        return taken


def _begin() -> None:
    _end_with_parent()
    os.nice(5)  # the workers themselves come first
    with suppress(Exception):  # a process that fails here would be started again and again
        _read_compiler()


def _read_compiler() -> None:
    """Triton's digests of its own files. Each process needs them once, and no kernel is listed yet."""
    from triton.compiler.compiler import make_backend
    from triton.runtime import driver
    from triton.runtime.cache import triton_key

    triton_key()
    make_backend(driver.active.get_current_target()).hash()


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _compile(module: str, name: str, data: str) -> None:
    """Has Triton compile a kernel and keep it, unless it is kept already.

    Args:
        module: of the kernel.
        name: of the kernel.
        data: its specialization, as Triton's `preload` takes it.
    """
    try:
        made = getattr(importlib.import_module(module), name).preload(data)
        _make_launcher(made)
    except Exception as error:  # a compiler's, of any kind
        logger.debug("%s is not compiled ahead: %s", name, first_line(error))


def _make_launcher(made: Any) -> None:
    """Has Triton compile its launcher in C, which it does for each signature before version 3.7."""
    from triton.backends.nvidia import driver

    if hasattr(driver, "make_launcher"):
        driver.CudaLauncher(made.src, made.metadata)
