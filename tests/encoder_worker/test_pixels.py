"""Pictures of eight bits at the end of a decoder's network, beside torch's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from encoder_worker.vae.pixels import pictures_of, with_pixels
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


def test_a_pixel_shuffle_by_numpy() -> None:
    before = np.random.default_rng(0).integers(0, 256, (3, 7, 5, 12), np.uint8)
    made = pictures_of(before)
    wanted = F.pixel_shuffle(torch.from_numpy(before).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
    assert np.array_equal(made, wanted.numpy())
