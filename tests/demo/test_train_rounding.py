"""The decoder trains with rounded inputs."""

from __future__ import annotations

import torch

from demo.factory.train.config import VAE
from demo.factory.train.rounding import RANGE, STEPS, rounded, train_for_eight_bits
from encoder_worker.vae.lite_decoder import LiteDecoder


def test_inputs_are_cut_off_and_rounded_and_gradients_pass() -> None:
    inputs = torch.linspace(0, 2, 501).requires_grad_(True)
    output = rounded(inputs)
    step = 2 * RANGE / STEPS
    assert len(output.detach().unique()) == STEPS + 1
    assert torch.allclose(output / step, (output / step).round(), atol=1e-4)
    within = inputs.detach() < 2 * RANGE
    assert ((output - inputs).abs()[within] <= step / 2 + 1e-6).all()
    output.sum().backward()
    assert inputs.grad is not None
    assert torch.equal(inputs.grad[within], torch.ones_like(inputs.grad[within]))
    assert not inputs.grad[inputs.detach() > 2 * RANGE].any()


def test_nothing_but_zeros_stays_so() -> None:
    assert not rounded(torch.zeros(2, 3)).any()


def test_a_decoder_that_trains_for_eight_bits_keeps_its_weights() -> None:
    torch.manual_seed(0)
    decoder, latents = LiteDecoder(VAE), torch.randn(1, VAE["latent_channels"], 4, 4)
    plain, names = decoder(latents), list(decoder.state_dict())
    train_for_eight_bits(decoder)
    rounding = decoder(latents)
    assert list(decoder.state_dict()) == names
    assert not torch.equal(rounding, plain)
    assert (rounding - plain).square().mean() < 0.01 * plain.square().mean()
