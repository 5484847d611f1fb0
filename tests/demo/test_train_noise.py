"""Training and serving noise latents by the same functions."""

from __future__ import annotations

import torch

from demo.factory.train.config import INFERENCE
from demo.factory.train.denoiser import CARRIED_NOISE, TrainingBatch, noised, signal_shares, starting_latents
from gpu_worker.denoiser.sampler import NOISE_LIMIT, SchedulerConfig, make_steps

COUNT, FRAMES = 64, 3


def batch() -> TrainingBatch:
    torch.manual_seed(0)
    nothing = torch.zeros(COUNT, 0)
    clean, carried = torch.randn(COUNT, 4, FRAMES, 2, 2), torch.randn(COUNT, 4, 2, 2)
    return TrainingBatch(clean=clean, carried=carried, reference=nothing, tokens=nothing, poses=nothing)


def test_the_servers_steps_undo_the_noise_of_training() -> None:
    """x0 = signal · x - noise · v with the sampler's numbers gives training's clean latents back."""
    given = batch()
    noisy, velocity, timesteps, _ = noised(given, signal_shares(torch.device("cpu")))
    every_step = make_steps(SchedulerConfig.from_dict(INFERENCE["noise_scheduler_kwargs"]), 1000)
    steps = {step.timestep: step for step in every_step}
    assert len(set(timesteps.tolist())) > 5
    for row, timestep in enumerate(timesteps.tolist()):
        step = steps[timestep]
        clean = step.signal * noisy[row] - step.noise * velocity[row]
        torch.testing.assert_close(clean, given.clean[row], rtol=1e-4, atol=1e-5)


def test_carried_latents_start_as_served_ones() -> None:
    given = batch()
    carry = torch.arange(COUNT) % 2 == 0
    torch.manual_seed(1)
    start = starting_latents(given, carry)
    torch.manual_seed(1)
    noise = torch.randn_like(given.clean).clamp(-NOISE_LIMIT, NOISE_LIMIT)
    amount = CARRIED_NOISE * torch.rand(COUNT, 1, 1, 1)
    carried = given.carried + amount * torch.randn_like(given.carried)
    torch.testing.assert_close(start[::2, :, 0], 0.6 * carried[::2] + 0.4 * noise[::2, :, 0])
    assert torch.equal(start[1::2], noise[1::2])
    assert torch.equal(start[:, :, 1:], noise[:, :, 1:])
