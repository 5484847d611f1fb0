"""Networks of torch converted for OpenVINO, and kept for the next start (`cpu_graph`)."""

from __future__ import annotations

import hashlib
import logging
import platform
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from protocol.model.cpu_graph import (
    CpuEngine,
    CpuGraph,
    GraphUnavailable,
    compile_model,
    import_openvino,
)
from protocol.model.hardware.cpu_features import cpu_features
from protocol.model.hardware.dtypes import dtype_name
from protocol.model.topology import NetworkEnd

logger = logging.getLogger(__name__)


def load_graph(
    module: nn.Module,
    inputs: Sequence[Tensor],
    dtype: torch.dtype,
    engine: CpuEngine,
    *,
    name: str,
    sources: Path,
    lengths: Mapping[int, int] = MappingProxyType({}),
    end: NetworkEnd | None = None,
) -> CpuGraph:
    """The network for inputs of these shapes: from the folder, or converted now and kept there.

    Args:
        module: the network in float32, with one output. Its `forward` takes the inputs in their order.
        inputs: examples, float32 or int64.
        dtype: of the arithmetic.
        engine: where networks are kept, and how many threads they use.
        name: begins the kept file's name.
        sources: the folder of the network's code. A change there makes a kept file void.
        lengths: the inputs, by number, whose first dimension may have any length from 1 to this one.
        end: is added to it. Its code is in `sources`.

    Raises:
        GraphUnavailable: OpenVINO cannot be imported, or cannot compute in `dtype`.
        Exception: whatever OpenVINO raises while it converts or compiles.
    """
    arithmetic = dtype_name(dtype)
    openvino = import_openvino()
    key = _key(module, inputs, dtype, sources, openvino.__version__, lengths)
    file = engine.folder / f"{name}-{key}.blob"
    begin = time.monotonic()

    def make() -> Any:
        model = _of_shapes(converted(module, inputs), inputs, lengths)
        return model if end is None else end.add(model)

    graph, is_new = compile_model(file, arithmetic, engine.threads, make)
    if is_new:
        logger.info("%s converted for OpenVINO in %.1f s (%s)", name, time.monotonic() - begin, file)
    return graph


def converted(module: nn.Module, inputs: Sequence[Tensor]) -> Any:
    """A network as OpenVINO's model.

    Args:
        module: the network in float32. Its `forward` takes the inputs in their order.
        inputs: examples that it is traced with.

    Raises:
        GraphUnavailable: OpenVINO cannot be imported, or the network uses not all of the inputs.
        Exception: whatever OpenVINO raises while it converts.
    """
    openvino = import_openvino()
    with torch.no_grad(), warnings.catch_warnings():
        # torch calls tracing deprecated, and says of shapes that they become constants, as they should.
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(module, tuple(inputs), check_trace=False)
        model = openvino.convert_model(traced, example_input=tuple(inputs))
    if len(model.inputs) != len(inputs):
        raise GraphUnavailable(f"{len(inputs)} inputs became {len(model.inputs)}")
    return model


def _of_shapes(model: Any, inputs: Sequence[Tensor], lengths: Mapping[int, int]) -> Any:
    """The model for inputs of these shapes. `lengths` as for `load_graph`."""
    openvino = import_openvino()
    shapes = [openvino.PartialShape(list(x.shape)) for x in inputs]
    for index, most in lengths.items():
        shapes[index][0] = openvino.Dimension(1, most)
    model.reshape(dict(zip(model.inputs, shapes, strict=True)))
    return model


def _key(
    module: nn.Module,
    inputs: Sequence[Tensor],
    dtype: torch.dtype,
    sources: Path,
    version: str,
    lengths: Mapping[int, int],
) -> str:
    """A digest of all that a compiled network depends on."""
    shapes = [
        ("any" if index in lengths else len(x), tuple(x.shape[1:]), x.dtype) for index, x in enumerate(inputs)
    ]
    facts = (
        shapes,
        sorted(lengths.items()),
        dtype,
        version,
        torch.__version__,
        platform.machine(),
        sorted(cpu_features()),
    )
    digest = hashlib.sha256(repr(facts).encode())
    for path in sorted(sources.rglob("*.py")):
        digest.update(path.read_bytes())
    for key, value in module.state_dict().items():
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()[:24]
