"""Networks that OpenVINO runs on a CPU: kept on disk, and loaded without torch.

They come from a model's topologies (`topology`) or from torch's networks (`cpu_convert`). `openvino` is
imported when a network is first asked for. Whatever fails there is the caller's to catch.
"""

from __future__ import annotations

import importlib
import logging
import mmap
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.model.hardware.drivers import only_a_cpu
from protocol.model.hardware.threads import thread_count
from protocol.model.hardware.torch_missing import torch_is_installed
from protocol.model.kept_folder import kept_folder, write_whole
from protocol.process.logs import first_line
from protocol.process.settings import Settings

logger = logging.getLogger(__name__)

#: OpenVINO's names of the arithmetic that it can compute in, by torch's.
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}

#: Most networks kept in the folder. The oldest are removed.
MOST_KEPT = 24

#: Names of kept networks: only such files are ever removed.
KEPT_NAME = re.compile(r"[\w-]+-[0-9a-f]{24}\.blob")

#: OpenVINO serves where a clip takes it less than this share of torch's time: it also takes memory. Eight
#: bits serve where they take less than this share of OpenVINO's other arithmetic: they are less exact.
CLEARLY = 0.95

#: Calls in a row of at most half the longest one's frames, after which a network gives its memory back.
SHORT_CALLS = 8

#: Runs of each task that count when the fastest is chosen.
TIMED_RUNS = 3

Floats = npt.NDArray[np.float32]


class GraphUnavailable(RuntimeError):
    """OpenVINO cannot run this network. The text says why."""


@dataclass(frozen=True)
class CpuEngine:
    """How a worker uses OpenVINO.

    Attributes:
        forced: whether OpenVINO serves even where torch is faster.
        folder: keeps converted networks.
        threads: that a network may use.
        eight_bit: whether a network that rounds to eight bits may serve.
    """

    forced: bool
    folder: Path
    threads: int
    eight_bit: bool = False

    @classmethod
    def of(cls, settings: Settings) -> CpuEngine | None:
        """The wish of `--cpu-engine`, or None for torch alone."""
        if settings.cpu_engine == "torch":
            return None
        folder = kept_folder(settings, "openvino")
        forced = settings.cpu_engine in ("openvino", "openvino-int8")
        eight_bit = settings.cpu_engine != "openvino"
        return cls(forced, folder, thread_count(settings), eight_bit)


def serves_untimed(engine: CpuEngine, devices: Sequence[str]) -> bool:
    """Whether OpenVINO computes without being timed against torch: that is not installed, or is not wanted.

    Args:
        engine: the wish.
        devices: that the settings name for this worker.
    """
    if not torch_is_installed():
        return set(devices) <= {"auto", "cpu"}
    return engine.forced and only_a_cpu(devices)


def untimed_reason() -> str:
    """The reason that `serves_untimed` has, for the log."""
    return "--cpu-engine asks for it" if torch_is_installed() else "torch is not installed"


def is_faster(seconds: float, others: float) -> bool:
    """Whether these seconds are clearly less than another way's for the same work."""
    return seconds < CLEARLY * others


def best_times(
    tasks: Sequence[Callable[[], object]], clock: Callable[[], float] = time.process_time
) -> list[float]:
    """The shortest time of each task in seconds. A first run of each is not timed.

    Args:
        tasks: run in turn, so that other load on the machine slows all of them alike.
        clock: processor time of all threads, which other load changes least.
    """
    rounds: list[list[float]] = []
    for _ in range(1 + TIMED_RUNS):
        rounds.append([])
        for task in tasks:
            begin = clock()
            task()
            rounds[-1].append(clock() - begin)
    return [min(column) for column in zip(*rounds[1:], strict=True)]


class CpuGraph:
    """A network compiled for inputs of given shapes. Belongs to one thread.

    Args:
        compiled: OpenVINO's compiled model.
        file: where the network is kept, or would be if it could be written.
        mapped: the memory that the network was loaded from.
    """

    def __init__(self, compiled: Any, file: Path, mapped: mmap.mmap | None = None) -> None:
        self._request = compiled.create_infer_request()
        self._mapped = mapped  # OpenVINO reads constants from there
        self._tensor = import_openvino().Tensor
        #: The most frames of a call since memory was given back, the most of the short calls after that one,
        #: and how many these are.
        self._longest = self._longest_lately = self._short_calls = 0
        self.file = file

    def __call__(self, *inputs: npt.NDArray[Any]) -> Floats:
        """The first output for these inputs, float32. The next call writes over it."""
        first: Floats = self.outputs(*inputs)[0]
        return first

    def outputs(self, *inputs: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], ...]:
        """All outputs for these inputs, float32 but where the network ends otherwise.

        The next call writes over them.
        """
        self._fit(len(inputs[0]))
        # In a list, since the copy of an array that is not contiguous has to outlast the call.
        arrays = [np.ascontiguousarray(array) for array in inputs]
        for index, array in enumerate(arrays):
            self._request.set_input_tensor(index, self._tensor(array, shared_memory=True))
        self._request.infer()
        return tuple(tensor.data for tensor in self._request.output_tensors)

    def release_file(self) -> None:
        """Lets the pages of the kept file go.

        Most of them were read to be repacked for the processor. The rest is read again when it is needed.
        """
        if self._mapped is not None:
            with suppress(OSError):
                self._mapped.madvise(mmap.MADV_DONTNEED)

    def release(self) -> None:
        """Gives back the memory between the layers. The next call takes it again, which takes some 10 ms."""
        self._request.get_compiled_model().release_memory()

    def _fit(self, frames: int) -> None:
        """Follows the length of the calls: OpenVINO keeps the memory of the longest one, 10 MB a frame."""
        if 2 * frames > self._longest:
            self._longest = max(self._longest, frames)
            self._longest_lately = self._short_calls = 0
            return
        self._longest_lately = max(self._longest_lately, frames)
        self._short_calls += 1
        if self._short_calls == SHORT_CALLS:
            self.release()
            self._longest = self._longest_lately
            self._longest_lately = self._short_calls = 0


def kept_graph(file: Path, dtype: str, threads: int) -> CpuGraph | None:
    """The network of a kept file, or None where there is none that can be used. The log says why.

    Args:
        file: in the folder of kept networks.
        dtype: of the arithmetic, a name of `PRECISIONS`.
        threads: that the network may use.

    Raises:
        GraphUnavailable: OpenVINO cannot be imported, or cannot compute in `dtype`.
    """
    properties = graph_properties(dtype, threads)
    begin = time.monotonic()
    try:
        # Private, since OpenVINO asks for memory that it may write to.
        with file.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:  # ValueError: an empty file
        logger.warning("%s cannot be read: %s", file, first_line(error))
        return None
    openvino = import_openvino()
    try:
        blob = openvino.Tensor(np.frombuffer(mapped, np.uint8), shared_memory=True)
        graph = CpuGraph(openvino.Core().import_model(blob, "CPU", properties), file, mapped)
    except Exception as error:  # a damaged file raises anything; converting makes a new one
        logger.warning("%s cannot be used and is made anew: %s", file, first_line(error))
        return None
    graph.release_file()
    with suppress(OSError):
        os.utime(file)  # the oldest are removed first
    logger.info("network by OpenVINO loaded in %.1f s (%s)", time.monotonic() - begin, file)
    return graph


def compile_model(file: Path, dtype: str, threads: int, make: Callable[[], Any]) -> tuple[CpuGraph, bool]:
    """A network from its kept file, or compiled now and kept there.

    Args:
        file: in the folder of kept networks.
        dtype: of the arithmetic, a name of `PRECISIONS`.
        threads: that the network may use.
        make: makes OpenVINO's model, where it is to be compiled.

    Returns:
        The network, and whether it was compiled now.

    Raises:
        GraphUnavailable: OpenVINO cannot be imported, or cannot compute in `dtype`.
        Exception: whatever `make` raises, and OpenVINO while it compiles.
    """
    kept = kept_graph(file, dtype, threads)
    if kept is not None:
        return kept, False
    compiled = import_openvino().Core().compile_model(make(), "CPU", graph_properties(dtype, threads))
    keep_graph(compiled, file)
    return CpuGraph(compiled, file), True


def import_openvino() -> Any:
    """The library, which sends nothing to its makers.

    Raises:
        GraphUnavailable: it is not there, or this system cannot load it.
    """
    # Its converter reports every conversion through this package, and does without where it is missing.
    modules: dict[str, Any] = sys.modules
    modules.setdefault("openvino_telemetry", None)
    try:
        return importlib.import_module("openvino")
    except Exception as error:  # a shared library that does not load raises anything
        raise GraphUnavailable(f"OpenVINO cannot be imported: {first_line(error)}") from error


def require_openvino(dtype: str) -> None:
    """Raises GraphUnavailable where OpenVINO cannot be imported, or does not compute in `dtype`."""
    import_openvino()
    graph_properties(dtype, threads=1)


def graph_properties(dtype: str, threads: int) -> Mapping[str, Any]:
    """OpenVINO's settings of a network.

    Raises:
        GraphUnavailable: OpenVINO does not compute in `dtype`.
    """
    if dtype not in PRECISIONS:
        raise GraphUnavailable(f"OpenVINO does not compute in {dtype} here")
    return {
        "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Pinned threads of two processes would share the first core and leave the others idle.
        "ENABLE_CPU_PINNING": False,
    }


def keep_graph(compiled: Any, file: Path) -> None:
    """Writes a compiled model for the next start. A failure is logged."""
    try:
        exported = compiled.export_model()
        write_whole(file, exported.getvalue() if hasattr(exported, "getvalue") else exported)
        made_here = (path for path in file.parent.iterdir() if KEPT_NAME.fullmatch(path.name))
        by_age = sorted(made_here, key=lambda path: path.stat().st_mtime)
        for old in by_age[:-MOST_KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("the network is not kept for the next start: %s", first_line(error))
