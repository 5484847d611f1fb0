"""The decoder's heads get the drawings' contrast back."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from demo.factory.train.data import halved
from demo.factory.train.from_export import MODEL
from demo.factory.train.level import COLORS, level, line_of, scale_colors
from demo.factory.train.vae import AutoencoderLite

pytestmark = pytest.mark.slow


def test_the_line_is_found() -> None:
    torch.manual_seed(0)
    truth = torch.rand(2, COLORS, 8, 8)
    gain, offset = torch.tensor([0.9, 1.0, 1.2]), torch.tensor([0.0, 0.1, -0.2])
    output = (truth - offset.view(1, -1, 1, 1)) / gain.view(1, -1, 1, 1)
    found = line_of(output, truth)
    torch.testing.assert_close(found, (gain, offset), atol=1e-5, rtol=0)


def test_a_convolution_makes_its_line() -> None:
    conv = torch.nn.Conv2d(5, 4 * COLORS, 3, padding=1)
    inputs = torch.randn(1, 5, 6, 6)
    gain, offset = torch.tensor([0.9, 1.0, 1.2]), torch.tensor([0.0, 0.1, -0.2])
    with torch.no_grad():
        before = torch.nn.functional.pixel_shuffle(conv(inputs), 2)
        scale_colors(conv, gain, offset)
        after = torch.nn.functional.pixel_shuffle(conv(inputs), 2)
    wanted = before * gain.view(1, -1, 1, 1) + offset.view(1, -1, 1, 1)
    torch.testing.assert_close(after, wanted, atol=1e-5, rtol=0)


@pytest.fixture
def vae() -> AutoencoderLite:
    """The bundled one."""
    vae = AutoencoderLite().eval()
    vae.load_state_dict(
        {k: v.float() for k, v in load_file(MODEL / "vae/diffusion_pytorch_model.safetensors").items()}
    )
    return vae


@pytest.fixture
def truth() -> torch.Tensor:
    torch.manual_seed(0)
    coarse = torch.rand(4, COLORS, 8, 8)
    return torch.nn.functional.interpolate(coarse, scale_factor=64, mode="bilinear")


def test_contrast_that_was_lost_comes_back(vae: AutoencoderLite, truth: torch.Tensor) -> None:
    level(vae, truth)
    fine = vae.decoder.fine
    assert fine is not None
    for last in (vae.decoder.conv_out, fine.conv_out):
        scale_colors(last, torch.full((COLORS,), 0.8), torch.full((COLORS,), 0.1))
    for gain in level(vae, truth).values():
        torch.testing.assert_close(gain, torch.full((COLORS,), 1 / 0.8), atol=1e-3, rtol=0)


def test_contrast_is_chosen(vae: AutoencoderLite, truth: torch.Tensor) -> None:
    level(vae, truth, contrast=1.25)
    before = drawn(vae, truth)
    for gain in level(vae, truth).values():
        torch.testing.assert_close(gain, torch.full((COLORS,), 1 / 1.25), atol=1e-3, rtol=0)
    after = drawn(vae, truth)
    torch.testing.assert_close(before.mean((0, 2, 3)), after.mean((0, 2, 3)), atol=1e-3, rtol=0)


@torch.no_grad()
def drawn(vae: AutoencoderLite, truth: torch.Tensor) -> torch.Tensor:
    """The usual pictures of drawn ones."""
    return vae.decoder.plain(vae.decoder.features(vae.encode(halved(truth))))
