"""Pictures of eight bits at the end of a decoder's network for OpenVINO.

Without it a network ends in float32 planes. OpenVINO then moves each picture three times (a pixel shuffle and
two changes of the order in memory), and numpy five times (scaling, rounding, and a change of the order). Here
the network itself scales and rounds, in the order in which its last convolution writes. What is left of a
pixel shuffle moves bytes, and numpy does that in a seventh of the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from protocol.model.cpu_graph import import_openvino
from protocol.model.topology import NetworkEnd

#: Numbers of a pixel.
COLOURS = 3

#: How torch's pixel shuffle by two orders (N, 3, 2, 2, h, w).
SHUFFLE = [0, 1, 4, 2, 5, 3]


def with_pixels(model: Any) -> Any:
    """A decoder whose output is uint8.

    Args:
        model: an `openvino.Model`: latents → pictures (N, 3, H, W), nominally in -1..1.

    Returns:
        The model with another output: (N, H, W, 3), or where it ends in a pixel shuffle by two what goes into
        that, (N, H / 2, W / 2, 3·2·2). `pictures_of` makes pictures of either.
    """
    openvino = import_openvino()
    ops = openvino.opset8
    output = _before_shuffle(model.get_results()[0].input_value(0))
    levels = ops.add(ops.multiply(output, np.float32(127.5)), np.float32(127.5))
    rounded = ops.round(ops.clamp(levels, 0.0, 255.0), "half_to_even")
    pixels = ops.transpose(ops.convert(rounded, "u8"), np.array([0, 2, 3, 1]))
    return openvino.Model([pixels], model.get_parameters())


def pictures_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The output of a network of `with_pixels` → pictures (N, H, W, 3), in memory of their own."""
    frames, height, width, numbers = pixels.shape
    if numbers == COLOURS:
        return np.array(pixels)
    made = np.empty((frames, height, 2, width, 2, COLOURS), np.uint8)
    # Whole planes are quicker than the three colours of a pixel at a time.
    for colour, row, column in np.ndindex(COLOURS, 2, 2):
        made[:, :, row, :, column, colour] = pixels[..., 4 * colour + 2 * row + column]
    return made.reshape(frames, 2 * height, 2 * width, COLOURS)


def require_finite(weights: Iterable[tuple[str, NDArray[Any]]]) -> None:
    """Raises ValueError where a weight is not finite: pixels of eight bits do not tell.

    With weights of a usual size, finite latents give finite pictures in float32 and bfloat16.
    """
    for name, array in weights:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"the decoder's weight {name} is not finite")


def _before_shuffle(output: Any) -> Any:
    """What goes into a pixel shuffle by two that makes this output, or the output itself."""
    nodes = [output.get_node()]
    for kind in ("Reshape", "Transpose", "Reshape"):
        if nodes[-1].get_type_name() != kind:
            return output
        nodes.append(nodes[-1].input_value(0).get_node())
    order = nodes[1].input_value(1).get_node()
    shuffles = order.get_type_name() == "Constant" and cast(Any, order).data.tolist() == SHUFFLE
    before = nodes[2].input_value(0)
    return before if shuffles and before.get_partial_shape()[1] == 4 * COLOURS else output


#: For networks of decoders.
PIXELS = NetworkEnd("pixels", with_pixels)
