"""Pictures of eight bits at the end of a decoder's network, beside torch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoder_worker.vae.pixels import pictures_of, pixels_end, with_pixels
from protocol.model.cpu_convert import converted
from protocol.model.cpu_graph import compile_model

pytest.importorskip("openvino")

LATENTS = (2, 4, 6, 5)


class Shuffled(nn.Module):
    """Ends in a pixel shuffle by `by`, after a convolution to as many channels as that needs."""

    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by
        self.conv = nn.Conv2d(LATENTS[1], 3 * by * by, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        made = self.conv(x)
        return F.pixel_shuffle(made, self.by) if self.by > 1 else made


class Turned(Shuffled):
    """As a pixel shuffle by two, but rows and columns change places."""

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.conv(x).unflatten(1, (3, 2, 2)).permute(0, 1, 4, 3, 5, 2).flatten(4).flatten(2, 3)
        return made


@pytest.mark.parametrize(
    ("network", "whole"),
    [(Shuffled(2), False), (Shuffled(1), True), (Shuffled(4), True), (Turned(2), True)],
)
def test_pixels_are_those_of_float32_rounded(network: Shuffled, whole: bool, tmp_path: Path) -> None:
    """whole: the network shuffles pixels itself, or has none to shuffle."""
    torch.manual_seed(0)
    nn.init.normal_(network.conv.weight, std=0.15)  # some beyond -1..1
    latents = torch.randn(LATENTS)

    def make() -> Any:
        return with_pixels(converted(network, [latents]))

    graph, _ = compile_model(tmp_path / "network.blob", "float32", 1, make)
    pixels = graph.outputs(latents.numpy())[0]
    assert pixels.dtype == np.uint8 and (pixels.shape[3] == 3) is whole
    pictures = pictures_of(pixels)
    with torch.inference_mode():
        levels = (network(latents) * 127.5 + 127.5).clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert pictures.shape == levels.shape and pictures.flags.c_contiguous
    assert np.abs(pictures - levels).max() <= 0.5 + 1e-3
    assert {0, 255} <= set(pictures.ravel().tolist())
    graph.outputs(np.zeros(LATENTS, np.float32))
    assert np.abs(pictures - levels).max() <= 0.5 + 1e-3, "the next call wrote over them"


class Finer(nn.Module):
    """Ends as the finer head: a pixel shuffle, a ReLU, a convolution and another pixel shuffle.

    Args:
        relu: whether there is a ReLU.
        kernel: of the last convolution.
        bias: whether the last convolution has one.
    """

    def __init__(self, *, relu: bool = True, kernel: int = 3, bias: bool = True) -> None:
        super().__init__()
        self.relu = relu
        self.grow = nn.Conv2d(LATENTS[1], 7 * 4, 3, padding=1)
        self.conv = nn.Conv2d(7, 12, kernel, padding=kernel // 2, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        features = F.pixel_shuffle(self.grow(x), 2)
        return F.pixel_shuffle(self.conv(F.relu(features) if self.relu else features), 2)


@pytest.mark.parametrize(
    ("network", "numbers"),
    [
        (Finer(), 24),
        (Finer(relu=False), 12),
        (Finer(kernel=1), 12),
        (Finer(bias=False), 3),
        (Shuffled(2), 12),
        (Shuffled(1), 3),
    ],
)
def test_rows_stay_in_pairs_where_the_network_allows_it(
    network: Finer | Shuffled, numbers: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    nn.init.normal_(network.conv.weight, std=0.3)
    latents = torch.randn(LATENTS)

    def make() -> Any:
        return with_pixels(converted(network, [latents]), row_pairs=True)

    graph, _ = compile_model(tmp_path / "network.blob", "float32", 1, make)
    pixels = graph.outputs(latents.numpy())[0]
    assert pixels.shape[3] == numbers
    with torch.inference_mode():
        levels = (network(latents) * 127.5 + 127.5).clamp(0, 255).permute(0, 2, 3, 1).numpy()
    assert np.abs(pictures_of(pixels) - levels).max() <= 0.5 + 1e-3
    assert np.ptp(levels) > 100


@pytest.mark.parametrize("rows", [2, 4])
def test_rows_come_apart_in_numpy(rows: int) -> None:
    before = np.random.default_rng(0).integers(0, 256, (3, 7, 5, rows * 6), np.uint8)
    made = pictures_of(before)
    assert made.shape == (3, 7 * rows, 10, 3) and made.flags.c_contiguous
    for row, column in np.ndindex(rows, 2):
        start = 6 * row + 3 * column
        assert np.array_equal(made[:, row::rows, column::2], before[..., start : start + 3])


@pytest.mark.parametrize(
    ("dtype", "features", "pairs"),
    [
        ("bfloat16", {"amx_bf16", "avx512_bf16"}, True),
        ("bfloat16", {"avx512_bf16"}, False),
        ("float32", {"amx_bf16", "avx512_bf16"}, False),
    ],
)
def test_rows_stay_in_pairs_where_products_cost_least(
    dtype: str, features: set[str], pairs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("encoder_worker.vae.pixels.cpu_features", lambda: frozenset(features))
    end = pixels_end(dtype)
    made = end.add(converted(Finer(), [torch.zeros(LATENTS)]))
    assert made.outputs[0].get_partial_shape()[3].get_length() == (24 if pairs else 12)
    # A kept network is found by this name, and "pixels" was that of another order.
    assert end.name == ("pixels-of-row-pairs" if pairs else "pixels-by-rows")
