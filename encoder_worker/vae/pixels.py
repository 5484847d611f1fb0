"""Pictures of eight bits at the end of a decoder's network for OpenVINO.

Without it a network ends in float32 planes. OpenVINO then moves each picture three times (a pixel shuffle and
two changes of the order in memory), and numpy five times (scaling, rounding, and a change of the order). Here
the network itself scales and rounds, in the order in which its last convolution writes. Pixels that lie side
by side come one after the other there. So what is left of a pixel shuffle moves two bytes at a time, and
numpy does that in a sixteenth of the time.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder_worker.vae.pixel_rows import PAIR, before_shuffle, in_pixel_rows, in_row_pairs
from protocol.model.cpu_graph import import_openvino
from protocol.model.hardware.cpu_features import cpu_features
from protocol.model.topology import NetworkEnd

#: Numbers of a pixel.
COLOURS = 3


def with_pixels(model: Any, *, row_pairs: bool = False) -> Any:
    """A decoder whose output is uint8.

    Args:
        model: an `openvino.Model`: latents → pictures (N, 3, H, W), nominally in -1..1. Its shapes are known.
        row_pairs: whether the convolution after another pixel shuffle may take its rows in pairs.

    Returns:
        The model with another output: (N, H, W, 3), or where it ends in a pixel shuffle by two what goes into
        that, (N, H / rows, W / 2, rows·2·3), with two rows, or four by `row_pairs`. `pictures_of` makes
        pictures of any.
    """
    openvino = import_openvino()
    ops = openvino.opset8
    output = model.get_results()[0].input_value(0)
    last = before_shuffle(output)
    if last is not None and len(last.bias) == 2 * PAIR:
        last = in_pixel_rows(last)
        output = ((in_row_pairs(last) if row_pairs else None) or last).output()
    levels = ops.add(ops.multiply(output, np.float32(127.5)), np.float32(127.5))
    rounded = ops.round(ops.clamp(levels, 0.0, 255.0), "half_to_even")
    pixels = ops.transpose(ops.convert(rounded, "u8"), np.array([0, 2, 3, 1]))
    return openvino.Model([pixels], model.get_parameters())


def pictures_of(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The output of a network of `with_pixels` → pictures (N, H, W, 3), in memory of their own."""
    frames, height, width, numbers = pixels.shape
    if numbers == COLOURS:
        return np.array(pixels)
    rows = numbers // PAIR
    # Two pixels side by side are three words of two bytes. Whole planes of words are quicker than the three
    # words of a pair at a time.
    words = pixels.view(np.uint16).reshape(frames, height, width, rows, COLOURS)
    made = np.empty((frames, height, rows, width, COLOURS), np.uint16)
    for word in range(COLOURS):
        made[..., word] = words[..., word].swapaxes(2, 3)
    return made.view(np.uint8).reshape(frames, rows * height, 2 * width, COLOURS)


def pixels_end(dtype: str) -> NetworkEnd:
    """The end of a decoder's network on this processor.

    Pairs of rows save a pixel shuffle and double a convolution's products. That pays with the tiles of AMX,
    and not where products take longer.

    Args:
        dtype: of the arithmetic, float32 or bfloat16.
    """
    if dtype == "bfloat16" and "amx_bf16" in cpu_features():
        return NetworkEnd("pixels-of-row-pairs", partial(with_pixels, row_pairs=True))
    return NetworkEnd("pixels-by-rows", with_pixels)


def require_finite(weights: Iterable[tuple[str, NDArray[Any]]]) -> None:
    """Raises ValueError where a weight is not finite: pixels of eight bits do not tell.

    With weights of a usual size, finite latents give finite pictures in float32 and bfloat16.
    """
    for name, array in weights:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"the decoder's weight {name} is not finite")
