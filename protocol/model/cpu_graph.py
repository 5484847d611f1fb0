"""Networks that OpenVINO runs on a CPU: converted from torch once, kept on disk, loaded by the next start.

`openvino` is imported when a network is first asked for. Whatever fails there is the caller's to catch, since
torch can always serve.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import platform
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from protocol.model.hardware.cpu_features import cpu_features
from protocol.model.hardware.threads import thread_count
from protocol.model.kept_folder import kept_folder
from protocol.process.logs import first_line
from protocol.process.settings import Settings

logger = logging.getLogger(__name__)

#: OpenVINO's names of the arithmetic that it can compute in.
PRECISIONS = {torch.float32: "f32", torch.bfloat16: "bf16"}

#: Most networks kept in the folder. The oldest are removed.
MOST_KEPT = 24

#: Names of kept networks: only such files are ever removed.
KEPT_NAME = re.compile(r"[\w-]+-[0-9a-f]{24}\.blob")

#: OpenVINO serves where a clip takes it less than this share of torch's time: it also takes memory.
CLEARLY = 0.95

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
    """

    forced: bool
    folder: Path
    threads: int

    @classmethod
    def of(cls, settings: Settings) -> CpuEngine | None:
        """The wish of `--cpu-engine`, or None for torch alone."""
        if settings.cpu_engine == "torch":
            return None
        folder = kept_folder(settings, "openvino")
        return cls(settings.cpu_engine == "openvino", folder, thread_count(settings))


def is_faster(openvino: float, torch: float) -> bool:
    """Whether OpenVINO's time for the same work is clearly less than torch's."""
    return openvino < CLEARLY * torch


def best_times(
    tasks: Sequence[Callable[[], object]], clock: Callable[[], float] = time.process_time
) -> list[float]:
    """Seconds that each task takes at best, after one run that warms up.

    Args:
        tasks: run in turn, so that other load on the machine favours none.
        clock: processor time of all threads, for the same reason.
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
    """A network compiled for inputs of fixed shapes. Belongs to one thread.

    Args:
        compiled: OpenVINO's compiled model with one output.
    """

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The output for these inputs, float32. The next call writes over it."""
        for index, tensor in enumerate(inputs):
            self._request.set_input_tensor(index, _shared(tensor))
        self._request.infer()
        made: Floats = self._request.get_output_tensor(0).data
        return torch.from_numpy(made)


def load_graph(
    module: nn.Module,
    inputs: Sequence[Tensor],
    dtype: torch.dtype,
    engine: CpuEngine,
    *,
    name: str,
    sources: Path,
) -> CpuGraph:
    """The network for inputs of these shapes: from the folder, or converted now and kept there.

    Args:
        module: the network in float32, with one output. Its `forward` takes the inputs in their order.
        inputs: examples, float32 or int64.
        dtype: of the arithmetic.
        engine: where networks are kept, and how many threads they use.
        name: begins the kept file's name.
        sources: the folder of the network's code. A change there makes a kept file void.

    Raises:
        GraphUnavailable: OpenVINO cannot be imported, or cannot compute in `dtype`.
        Exception: whatever OpenVINO raises while it converts or compiles.
    """
    if dtype not in PRECISIONS:
        raise GraphUnavailable(f"OpenVINO does not compute in {dtype} here")
    openvino = _import_openvino()
    core = openvino.Core()
    properties = _properties(dtype, engine.threads)
    key = _key(module, inputs, dtype, sources, openvino.__version__)
    file = engine.folder / f"{name}-{key}.blob"
    begin = time.monotonic()
    compiled = _kept(core, file, properties)
    how = "loaded"
    if compiled is None:
        compiled = core.compile_model(_converted(openvino, module, inputs), "CPU", properties)
        _keep(compiled, file)
        how = "converted and compiled"
    logger.info("%s for OpenVINO: %s in %.1f s (%s)", name, how, time.monotonic() - begin, file)
    return CpuGraph(compiled)


def _import_openvino() -> Any:
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


def _properties(dtype: torch.dtype, threads: int) -> Mapping[str, Any]:
    return {
        "INFERENCE_PRECISION_HINT": PRECISIONS[dtype],
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Pinned threads of two processes would share the first core and leave the others idle.
        "ENABLE_CPU_PINNING": False,
    }


def _converted(openvino: Any, module: nn.Module, inputs: Sequence[Tensor]) -> Any:
    with torch.no_grad(), warnings.catch_warnings():
        # torch calls tracing deprecated, and says of shapes that they become constants, as they should.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, tuple(inputs), check_trace=False)
        model = openvino.convert_model(traced, example_input=tuple(inputs))
    if len(model.inputs) != len(inputs):
        raise GraphUnavailable(f"{len(inputs)} inputs became {len(model.inputs)}")
    model.reshape({port: list(x.shape) for port, x in zip(model.inputs, inputs, strict=True)})
    return model


def _kept(core: Any, file: Path, properties: Mapping[str, Any]) -> Any:
    """The compiled model of a kept file, or None where there is none that can be used."""
    try:
        return core.import_model(file.read_bytes(), "CPU", properties)
    except FileNotFoundError:
        return None
    except Exception as error:  # a damaged file raises anything; converting makes a new one
        logger.warning("%s cannot be used and is made anew: %s", file, first_line(error))
        return None


def _keep(compiled: Any, file: Path) -> None:
    """Writes the compiled model under its name at once, so that no other process reads half of it."""
    try:
        exported = compiled.export_model()
        with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", delete=False) as new:
            try:
                new.write(exported.getvalue() if hasattr(exported, "getvalue") else exported)
                new.flush()
                os.replace(new.name, file)
            except OSError:  # a full disk, say, where half a network would stay for ever
                Path(new.name).unlink(missing_ok=True)
                raise
        made_here = (path for path in file.parent.iterdir() if KEPT_NAME.fullmatch(path.name))
        by_age = sorted(made_here, key=lambda path: path.stat().st_mtime)
        for old in by_age[:-MOST_KEPT]:
            old.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("the network is not kept for the next start: %s", first_line(error))


def _key(module: nn.Module, inputs: Sequence[Tensor], dtype: torch.dtype, sources: Path, version: str) -> str:
    """A digest of all that a compiled network depends on."""
    shapes = [(tuple(x.shape), x.dtype) for x in inputs]
    facts = (shapes, dtype, version, torch.__version__, platform.machine(), sorted(cpu_features()))
    digest = hashlib.sha256(repr(facts).encode())
    for path in sorted(sources.rglob("*.py")):
        digest.update(path.read_bytes())
    for key, value in module.state_dict().items():
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]


def _shared(tensor: Tensor) -> Any:
    """An OpenVINO tensor over the same memory."""
    openvino = _import_openvino()
    return openvino.Tensor(tensor.contiguous().numpy(), shared_memory=True)
