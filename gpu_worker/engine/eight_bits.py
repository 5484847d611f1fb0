"""The denoiser in eight bits, for a CPU that multiplies them fast (VNNI). Without torch.

The linear layers and convolutions that do most of the work round their input to 255 levels, and their weights
to 255 levels an output channel. OpenVINO recognises the rounding and multiplies whole numbers. These stay as
they are, since rounding them makes most of the error: the feed-forward networks' second layers, whose inputs
are products and have a few huge values; convolutions of one place; the first and the last convolution.

The greatest inputs are measured once (`python -m demo.factory.calibrate`) and lie beside the networks. Their
table belongs to one network with one set of weights.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.model.cpu_graph import import_openvino
from protocol.model.hardware.cpu_features import cpu_features
from protocol.model.ranges_table import Ranges, read_ranges, write_ranges_table
from protocol.model.topology import FOLDER, NetworkEnd, ShippedNetwork
from protocol.wire.limits import TOKEN_WIDTH

logger = logging.getLogger(__name__)

#: The table of greatest inputs, beside the networks.
TABLE_FILE = "denoiser_int8.json"

#: Linux's names of instructions that add products of eight bits to 32. Without them sums of two may overflow.
FAST = {"avx512_vnni", "avx_vnni"}

#: Layers that round have at least so many channels on both sides, and so many weights. Smaller ones take
#: longer to round than they save.
LEAST_CHANNELS, LEAST_WEIGHTS = 64, 128 * 128

#: Part of the other arithmetic's time that it may take to be chosen. Its pictures are 0.02 dB less exact.
PAYS = 0.85

#: Levels of a value on each side of zero, and the least greatest value.
LEVELS, LEAST = 127, 1e-6


def multiplies_fast() -> bool:
    """Whether this CPU has instructions for products of eight bits."""
    return bool(FAST & cpu_features())


def rounding_layers(model: Any) -> Iterator[Any]:
    """The nodes of an `openvino.Model` that round, in order.

    They have constant weights. Besides those named above, layers that take audio tokens or the time do not.
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() not in ("MatMul", "Convolution"):
            continue
        weights, inputs = node.input_value(1), node.input_value(0).get_partial_shape()
        if _constant(weights) is None or inputs.rank.get_length() < 3:
            continue
        shape = weights.get_partial_shape().to_shape()
        outputs, width = reversed(shape) if _outputs_last(node) else shape[:2]
        is_large = min(outputs, width) >= LEAST_CHANNELS and math.prod(shape) >= LEAST_WEIGHTS
        is_linear = node.get_type_name() == "MatMul"
        stays = width > outputs if is_linear else set(shape[2:]) == {1}
        if is_large and not stays and width != TOKEN_WIDTH:
            yield node


def with_inputs(model: Any) -> tuple[Any, list[str]]:
    """A model whose outputs are the inputs of the layers that round, and these layers' names."""
    layers = list(rounding_layers(model))
    outputs = [layer.input_value(0) for layer in layers]
    made = import_openvino().Model(outputs, model.get_parameters())
    return made, [layer.get_friendly_name() for layer in layers]


def with_rounding(model: Any, ranges: Ranges) -> Any:
    """The model with rounding before each layer of `ranges`, which it is changed for.

    Args:
        model: an `openvino.Model` of the network that the ranges were measured on.
        ranges: of all its `rounding_layers`.
    """
    ops = import_openvino().opset8
    for layer in list(rounding_layers(model)):
        greatest = np.float32(max(ranges[layer.get_friendly_name()], LEAST))
        low = -greatest * np.float32((LEVELS + 1) / LEVELS)
        rounded = ops.fake_quantize(layer.input_value(0), low, greatest, low, greatest, 2 * (LEVELS + 1))
        weights = _constant(layer.input_value(1))
        assert weights is not None
        most = _peaks_of_outputs(layer, weights)
        steps = ops.fake_quantize(ops.constant(weights), -most, most, -most, most, 2 * LEVELS + 1)
        layer.input(0).replace_source_output(rounded.output(0))
        layer.input(1).replace_source_output(steps.output(0))
    model.validate_nodes_and_infer_types()
    return model


def rounding_of(config: Path, network: ShippedNetwork) -> NetworkEnd | None:
    """What makes a model's denoiser round, or None where it has no table for these weights. The log says why.

    Args:
        config: the model's configuration file.
        network: its denoiser.
    """
    file = config.parent / FOLDER / TABLE_FILE
    read = read_ranges(file, "denoising without int8")
    if read is None:
        return None
    digest, ranges = read
    if digest != network.digest:
        logger.warning("%s belongs to another network, denoising without int8", file)
        return None
    name = hashlib.sha256(repr(sorted(ranges.items())).encode()).hexdigest()[:12]
    return NetworkEnd(f"int8-{name}", lambda model: with_rounding(model, ranges))


def write_ranges(config: Path, network: ShippedNetwork, ranges: Ranges) -> Path:
    """Writes the table beside a model's networks. Returns the file. Arguments as of `rounding_of`."""
    file = config.parent / FOLDER / TABLE_FILE
    short = {name: float(f"{greatest:.4g}") for name, greatest in ranges.items()}
    write_ranges_table(file, network.digest, short)
    return file


def ranges_of_clips(names: Sequence[str], clips: Iterator[Sequence[NDArray[Any]]], share: float) -> Ranges:
    """The greatest inputs of layers over clips, in each without the largest `share` of values."""
    greatest = dict.fromkeys(names, 0.0)
    for inputs in clips:
        for name, values in zip(names, inputs, strict=True):
            flat = np.abs(values).reshape(-1)
            place = len(flat) - 1 - int(share * len(flat))
            greatest[name] = max(greatest[name], float(np.partition(flat, place)[place]))
    return greatest


def _constant(output: Any) -> NDArray[np.float32] | None:
    """The value of a constant, also behind a conversion of its type, or None."""
    node = output.get_node()
    while node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    return np.asarray(node.data, np.float32) if node.get_type_name() == "Constant" else None


def _outputs_last(layer: Any) -> bool:
    """Whether a layer's weights are (inputs, outputs), as convolutions' never are."""
    return layer.get_type_name() == "MatMul" and not layer.get_attributes()["transpose_b"]


def _peaks_of_outputs(layer: Any, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """The greatest weight of each output channel, in a shape that fits the weights."""
    axes = tuple(range(weights.ndim - 1) if _outputs_last(layer) else range(1, weights.ndim))
    peaks: NDArray[np.float32] = np.maximum(np.abs(weights).max(axes, keepdims=True), np.float32(LEAST))
    return peaks
