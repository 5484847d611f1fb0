"""Where the sampling of a clip begins: its noise by session, and what it takes from the clip before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from gpu_worker.denoiser.sampler import NOISE_LIMIT, SchedulerConfig, make_steps
from gpu_worker.engine.session_state import (
    NEW_NOISE,
    SEED_MIX,
    SESSION_NOISE,
    ZERO_NOISE,
    SessionState,
    SharedNoise,
)
from protocol.process.settings import Settings, load_settings
from protocol.wire.messages import Clip

SHAPE = (4, 3, 5)
STEPS = make_steps(
    SchedulerConfig(prediction_type="v_prediction", rescale_betas_zero_snr=True, clip_sample=False), 6
)


def settings(*argv: str) -> Settings:
    return load_settings(list(argv), env={})


def clip(session: str = "a", seq: int = 0, *, epoch: int = 0, frames: int = 12) -> Clip:
    return Clip(session, epoch, seq, seq * 8000, 24, "ann", "rest", np.zeros((frames, 1, 384), np.float16))


def noise(state: SessionState, *args: object, **kwargs: object) -> NDArray[np.float32]:
    return state.noise(clip(*args, **kwargs), SHAPE)  # type: ignore[arg-type]


# ------------------------------------------------------------------ which way


@pytest.mark.parametrize(
    ("usual", "flags", "way"),
    [
        (6, (), SESSION_NOISE),
        (6, ("--steps", "1"), SESSION_NOISE),
        (6, ("--steps", "30"), SESSION_NOISE),
        (1, (), SESSION_NOISE),
        (1, ("--steps", "1"), SESSION_NOISE),
        (1, ("--steps", "6"), ZERO_NOISE),
    ],
)
def test_by_default_a_session_has_one_noise_or_none(usual: int, flags: tuple[str, ...], way: str) -> None:
    """None where a model of one step takes more."""
    assert SessionState.of(settings(*flags), usual) == SessionState(way)


@pytest.mark.parametrize("way", [SESSION_NOISE, ZERO_NOISE, SEED_MIX, NEW_NOISE])
def test_each_way_is_had_by_name(way: str) -> None:
    flags = ("--session-state", way, "--late-start", "2", "--seed", "9", "--steps", "6")
    state = SessionState.of(settings(*flags), 1)
    assert state == SessionState(way, seed=9, late_start=2)
    assert state.first_steps == {0, 2}


def test_without_use_init_latent_nothing_is_kept() -> None:
    state = SessionState.of(
        settings("--no-use-init-latent", "--session-state", "seed-mix", "--late-start", "2"), 1
    )
    assert state == SessionState(NEW_NOISE)
    assert state.first_steps == {0}


# ------------------------------------------------------------------ the noise


def test_all_sessions_have_one_noise() -> None:
    state = SessionState(SESSION_NOISE)
    first = noise(state)
    assert first.shape == (12, *SHAPE)
    assert np.abs(first).max() == NOISE_LIMIT
    assert 0.7 < first.std() < 1.0  # clamped
    for others in ({"seq": 7}, {"epoch": 3}, {"epoch": 1, "seq": 2}):
        assert np.array_equal(noise(SessionState(SESSION_NOISE), **others), first)
    assert not np.array_equal(first[0], first[1])
    assert np.array_equal(noise(state, "b"), first)  # a loop of silent clips serves every session
    assert abs(float((noise(replace(state, seed=1)) * first).mean())) < 0.15


def test_all_clips_may_start_from_zeros() -> None:
    for others in ({}, {"seq": 7}, {"epoch": 3}, {"frames": 4}):
        made = noise(SessionState(ZERO_NOISE, seed=1), **others)
        assert made.shape == (others.get("frames", 12), *SHAPE) and made.dtype == np.float32
        assert not made.any()
    latents, first = SessionState(ZERO_NOISE).start(STEPS, noise(SessionState(ZERO_NOISE)), other_latent())
    assert not latents.any() and first == 0


def test_noise_of_a_shape_is_sent_once_for_each_way() -> None:
    sent: list[NDArray[np.float32]] = []

    def send(noise: NDArray[np.float32]) -> int:
        sent.append(noise)
        return len(sent)

    shared = SharedNoise[int](send)
    for way in (SESSION_NOISE, ZERO_NOISE, SESSION_NOISE, ZERO_NOISE):
        for seq in (0, 1):
            shared.get(SessionState(way), clip(seq=seq), SHAPE)
    assert len(sent) == 2 and sent[0].any() and not sent[1].any()
    assert [shared.get(SessionState(NEW_NOISE), clip(seq=seq), SHAPE) for seq in (0, 1)] == [3, 4]


@pytest.mark.parametrize("frames", [1, 4, 6, 11])
def test_a_shorter_clip_has_the_first_frames(frames: int) -> None:
    state = SessionState(SESSION_NOISE)
    assert np.array_equal(noise(state, frames=frames), noise(state)[:frames])


@pytest.mark.parametrize("way", [SEED_MIX, NEW_NOISE])
def test_other_ways_have_a_noise_for_each_clip(way: str) -> None:
    state = SessionState(way)
    made = [noise(state), noise(state, seq=1), noise(state, epoch=1), noise(state, "b")]
    assert all(not np.array_equal(made[0], other) for other in made[1:])
    assert np.array_equal(noise(state, seq=1), made[1])


def other_latent() -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal(SHAPE, np.float32)


# ------------------------------------------------------------------ the start


@pytest.mark.parametrize("state", [SessionState(SEED_MIX), SessionState(SESSION_NOISE, late_start=2)])
def test_torchs_tensors_start_as_numpys_arrays(state: SessionState) -> None:
    own, before = noise(state), other_latent()
    wanted, first = state.start(STEPS, own, before)
    tensors, same = state.start(STEPS, torch.from_numpy(own), torch.from_numpy(before))
    assert first == same
    np.testing.assert_allclose(tensors.numpy(), wanted, rtol=1e-6)


def test_what_goes_on_from_the_clip_before() -> None:
    own, before = noise(SessionState(NEW_NOISE)), other_latent()
    for way in (SESSION_NOISE, NEW_NOISE):
        latents, first = SessionState(way).start(STEPS, own, before)
        assert np.array_equal(latents, own) and first == 0
    latents, first = SessionState(SEED_MIX).start(STEPS, own, before)
    np.testing.assert_allclose(latents[0], 0.6 * before + 0.4 * own[0], rtol=1e-6)
    assert np.array_equal(latents[1:], own[1:]) and first == 0


@pytest.mark.parametrize("way", [SESSION_NOISE, SEED_MIX])
def test_late_start_noises_the_last_latent(way: str) -> None:
    own, before = noise(SessionState(way)), other_latent()
    latents, first = SessionState(way, late_start=2).start(STEPS, own, before)
    assert first == 2
    for frame in (0, 11):
        wanted = STEPS[2].signal * before + STEPS[2].noise * own[frame]
        np.testing.assert_allclose(latents[frame], wanted, rtol=1e-6)


@pytest.mark.parametrize("state", [SessionState(SEED_MIX), SessionState(SESSION_NOISE, late_start=2)])
def test_a_clip_that_follows_none_starts_from_noise(state: SessionState) -> None:
    own = noise(state)
    for before in (None, np.zeros((4, 6, 10), np.float32)):  # none, or one of another size
        latents, first = state.start(STEPS, own, before)
        assert np.array_equal(latents, own) and first == 0
