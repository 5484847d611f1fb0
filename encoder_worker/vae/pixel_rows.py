"""The last convolutions of a decoder, with their channels in an order that leaves little to move.

A pixel shuffle by two makes two rows and two columns of four channels. It moves each number by itself, and
for the finer head's features OpenVINO takes as long for that as for a convolution. In memory the channels of
a position lie side by side. Hence columns need no move where the channels come in the order of the columns:
positions (h, w) of 2·n channels are positions (h, 2·w) of n channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from protocol.model.cpu_graph import import_openvino

#: Numbers of two pixels.
PAIR = 6

#: How torch's pixel shuffle by two orders (N, C, 2, 2, h, w).
SHUFFLE = [0, 1, 4, 2, 5, 3]

#: The orders of a position's channels and of positions, for OpenVINO.
CHANNELS_LAST, CHANNELS_FIRST = np.array([0, 2, 3, 1]), np.array([0, 3, 1, 2])


@dataclass(frozen=True, eq=False)
class Convolution:
    """A convolution of an `openvino.Model` with a stride of 1.

    Attributes:
        source: the output that it takes, (N, I, h, w).
        weights: (O, I, k, k), float32.
        bias: (O,), float32.
        pads: rows and columns of zeros on each side.
    """

    source: Any
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]
    pads: Sequence[int]

    @classmethod
    def at(cls, output: Any) -> Convolution | None:
        """The convolution that makes an output, or None where something else does."""
        added = _inputs(output, "Add")
        taken = _inputs(added[0], "Convolution") if added else []
        constants = [each.get_node() for each in (*taken[1:], *added[1:])]
        if not taken or any(node.get_type_name() != "Constant" for node in constants):
            return None
        weights, bias = (node.data for node in constants)
        facts = added[0].get_node().get_attributes()
        pads = list(facts["pads_begin"])
        is_plain = (
            all(side == 1 for side in (*facts["strides"], *facts["dilations"]))
            and (list(facts["pads_end"]), facts["auto_pad"]) == (pads, "explicit")
            and weights.dtype == bias.dtype == np.float32
            and bias.size == len(weights)
        )
        return cls(taken[0], weights, bias.reshape(-1), pads) if is_plain else None

    def output(self) -> Any:
        """The output of this convolution as a new part of the model."""
        ops = import_openvino().opset8
        weights = ops.constant(np.ascontiguousarray(self.weights))
        made = ops.convolution(self.source, weights, [1, 1], self.pads, self.pads, [1, 1])
        return ops.add(made, ops.constant(self.bias.reshape(1, -1, 1, 1))).output(0)


def before_shuffle(output: Any) -> Convolution | None:
    """The convolution before a pixel shuffle by two that makes this output, or None where there is none."""
    outer = _inputs(output, "Reshape")
    moved = _inputs(outer[0], "Transpose") if outer else []
    inner = _inputs(moved[0], "Reshape") if moved else []
    if not inner:
        return None
    order = moved[1].get_node()
    shuffles = order.get_type_name() == "Constant" and order.data.tolist() == SHUFFLE
    return Convolution.at(inner[0]) if shuffles else None


def in_pixel_rows(last: Convolution) -> Convolution:
    """The convolution with its channels (colour, row, column) in the order row, column, colour."""
    weights = last.weights.reshape(3, 2, 2, *last.weights.shape[1:]).transpose(1, 2, 0, 3, 4, 5)
    bias = last.bias.reshape(3, 2, 2).transpose(1, 2, 0)
    return replace(last, weights=weights.reshape(last.weights.shape), bias=bias.reshape(-1))


def in_row_pairs(last: Convolution) -> Convolution | None:
    """The convolution on features whose rows stay in pairs, so that no pixel shuffle comes before it.

    It reads three pairs of rows, and each row that it makes depends on three of these six. So half of its
    weights are zero.

    Args:
        last: (N, C, 2h, 2w) → (N, O, 2h, 2w), of features after a ReLU.

    Returns:
        A convolution (N, 2·C, h, 2w) → (N, 2·O, h, 2w). None where `last` is not 3×3, or no pixel shuffle
        comes before the ReLU.
    """
    relu = _inputs(last.source, "Relu")
    grow = before_shuffle(relu[0]) if relu else None
    outputs, features, *kernel = last.weights.shape
    if grow is None or kernel != [3, 3] or list(last.pads) != [1, 1]:
        return None
    weights = np.zeros((2, outputs, 2, features, 3, 3), np.float32)
    for row in range(2):
        for tap in range(3):
            pair, row_there = divmod(row + tap - 1, 2)
            weights[row, :, row_there, :, pair + 1] = last.weights[:, :, tap]
    return Convolution(
        _as_row_pairs(grow),
        weights.reshape(2 * outputs, 2 * features, 3, 3),
        np.tile(last.bias, 2),
        last.pads,
    )


def _as_row_pairs(grow: Convolution) -> Any:
    """A convolution's output after a pixel shuffle and a ReLU, with its rows in pairs: (N, 2·C, h, 2w).

    Args:
        grow: (N, I, h, w) → (N, C·2·2, h, w).
    """
    ops = import_openvino().opset8
    features = len(grow.bias) // 4
    weights = grow.weights.reshape(features, 2, 2, *grow.weights.shape[1:]).transpose(2, 1, 0, 3, 4, 5)
    bias = grow.bias.reshape(features, 2, 2).transpose(2, 1, 0)
    by_columns = replace(grow, weights=weights.reshape(grow.weights.shape), bias=bias.reshape(-1))
    grown = ops.relu(by_columns.output())
    # OpenVINO takes the memory as it lies for all of these. None of them moves a number.
    wide = ops.reshape(ops.transpose(grown, CHANNELS_LAST), np.array([0, 0, -1, 2 * features]), True)
    return ops.transpose(wide, CHANNELS_FIRST).output(0)


def _inputs(output: Any, kind: str) -> list[Any]:
    """The outputs that go into an operation of this kind, or none where another one makes the output."""
    node = output.get_node()
    return list(node.input_values()) if node.get_type_name() == kind else []
