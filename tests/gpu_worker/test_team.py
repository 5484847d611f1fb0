"""A team of processes on the CPU, by gloo: the clips of one process, and members that are lost."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from gpu_worker.denoiser.loading import Models
from gpu_worker.denoiser.model import DenoisingUNet3D, ReferenceCache, UNetConfig
from gpu_worker.denoiser.pipeline import ClipDenoiser
from gpu_worker.engine.serve import DenoiserEngine
from gpu_worker.engine.torch_parts import TorchDevice
from gpu_worker.engine_api import DeviceLost
from gpu_worker.fast import FastDenoiser
from gpu_worker.fast.tiers import TIERS
from gpu_worker.team import denoiser as leading
from gpu_worker.team.denoiser import SharedReferences, TeamDenoiser
from gpu_worker.team.members import Members
from protocol.process.settings import SettingsError
from tests.gpu_worker.engine_world import clip, differ, make, settings_for, write_world
from tests.gpu_worker.test_clip_denoiser import conditions, difference, seeded
from tests.gpu_worker.test_fast import LIMIT, drawn_models, random_vectors

pytestmark = [pytest.mark.slow, pytest.mark.process]

CPU = torch.device("cpu")
FRAMES = 12
Given = tuple[Tensor, Tensor, Tensor, ReferenceCache]


@pytest.fixture(scope="module")
def models() -> Models:
    return drawn_models()


@pytest.fixture(scope="module")
def given(models: Models) -> Given:
    made = conditions(ClipDenoiser(models), FRAMES)
    noise = torch.randn(FRAMES, 8, 8, 8, generator=seeded())
    return noise, made["tokens"], made["pose_features"], made["reference"]


@contextmanager
def team(models: Models, size: int, **options: Any) -> Iterator[TeamDenoiser]:
    members = Members([CPU] * size)
    try:
        yield TeamDenoiser(models, members, **options)
    finally:
        members.close()
        if dist.is_initialized():
            dist.destroy_process_group()


def first_frames(given: Given, count: int) -> Given:
    noise, tokens, pose, reference = given
    return noise[:count], tokens[:count], pose[:count], reference


def alone(models: Models, given: Given, start: int = 0, **options: Any) -> Tensor:
    fast = FastDenoiser(models, **options)
    fast.prepare(*given, starts=(0, start))
    return fast.sample(*given, start)


@pytest.mark.parametrize("size", [2, 3])
def test_the_same_clips(models: Models, given: Given, size: int) -> None:
    """From the first step and from a later one, for two avatars. 3 does not divide the positions of 8×8."""
    other = ClipDenoiser(models).prepare_reference(np.full((16, 16, 3), 200, np.uint8)).reference
    with team(models, size) as denoiser:
        denoiser.prepare(*given, starts=(0, 1))
        for reference in (given[3], other, given[3]):
            inputs = (*given[:3], reference)
            assert difference(denoiser.sample(*inputs), alone(models, inputs)) <= LIMIT
        assert difference(denoiser.sample(*given, 1), alone(models, given, 1)) <= LIMIT
        for count in (6, 2 * size, size):  # at last one frame each
            fewer = first_frames(given, count)
            denoiser.prepare(*fewer, starts=(0, 1))
            assert difference(denoiser.sample(*fewer), alone(models, fewer)) <= LIMIT
            assert difference(denoiser.sample(*fewer, 1), alone(models, fewer, 1)) <= LIMIT


def test_the_fast_tier(models: Models, given: Given) -> None:
    """All members have the same scales of float8, so its rounding is that of one process."""
    with team(models, 2, tier=TIERS["fast"]) as denoiser:
        denoiser.prepare(*given)
        made = denoiser.sample(*given)
    assert difference(made, alone(models, given, tier=TIERS["fast"])) <= 100 * LIMIT


def test_other_arithmetic_and_networks(models: Models, given: Given) -> None:
    """In bfloat16, a network whose middle has no motion module."""
    config = models.denoiser.config
    assert config.motion is not None
    other = replace(config, motion=replace(config.motion, mid_block=False))
    assert isinstance(other, UNetConfig)
    torch.manual_seed(3)
    denoiser = DenoisingUNet3D(other).to(torch.bfloat16).eval().requires_grad_(False)
    random_vectors(denoiser)
    half = replace(models, denoiser=denoiser, dtype=torch.bfloat16)
    reference = given[3].to(CPU, torch.bfloat16)
    inputs = (given[0], given[1].bfloat16(), given[2].bfloat16(), reference)
    with team(half, 2) as made:
        made.prepare(*inputs)
        assert difference(made.sample(*inputs), alone(half, inputs)) <= 2e-2


def test_frames_that_do_not_divide(models: Models, given: Given) -> None:
    with team(models, 2) as denoiser, pytest.raises(DeviceLost, match="2 members cannot share 5 frames"):
        denoiser.prepare(*first_frames(given, 5))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_member_that_is_lost(
    models: Models, given: Given, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed one is noticed at once, a stopped one when its clip is due."""
    monkeypatch.setattr(leading, "CLIP_SECONDS", 2.0)
    with team(models, 2) as denoiser:
        denoiser.prepare(*given)
        (pid,) = denoiser.members.pids()
        os.kill(pid, number)
        if number == signal.SIGSTOP:
            denoiser.members.order("sample", seconds=2.0)  # an exchange would wait for it here
        until = time.monotonic() + 20
        reason = (
            "was killed by signal 9" if number == signal.SIGKILL else "has not confirmed an order in time"
        )
        with pytest.raises(DeviceLost, match=f"member 1 of the team, on cpu, {reason}"):
            while time.monotonic() < until:
                denoiser.members.check()
                time.sleep(0.05)
        with pytest.raises(DeviceLost):
            denoiser.sample(*given)
        assert not denoiser.members.store.parent.exists()
        os.kill(pid, signal.SIGCONT) if number == signal.SIGSTOP else None


def test_a_member_that_fails(models: Models, given: Given) -> None:
    with team(models, 2) as denoiser:
        denoiser.members.order("dance")
        with pytest.raises(DeviceLost, match="member 1 of the team, on cpu, failed: KeyError: 'dance'"):
            denoiser.members.wait()


def test_members_end_with_their_leader(models: Models) -> None:
    with team(models, 2) as denoiser:
        (pid,) = denoiser.members.pids()
        assert denoiser.members.store.parent.is_dir()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not denoiser.members.store.parent.exists()


def test_references_that_are_dropped() -> None:
    def reference(side: int) -> ReferenceCache:
        return ReferenceCache(((torch.zeros(1, side, 1), torch.zeros(1, side, 1)),))

    shared = SharedReferences(budget=100)
    first, second = reference(5), reference(5)
    assert shared.number_of(first) == (1, [], True)
    assert shared.number_of(second) == (2, [], True)
    assert shared.number_of(first) == (1, [], False)
    third = reference(5)
    assert shared.number_of(third) == (3, [2], True)  # the one used least lately
    del first
    fourth = reference(1)
    assert shared.number_of(fourth) == (4, [1], True)  # the leader has let go of it


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    words = write_world(tmp_path_factory.mktemp("official"))
    at = words.index("--gpu-devices")
    # At 64² the deepest level has one position and two channels a group; normalising them enlarges rounding.
    larger = ("--width", "128", "--height", "128")
    return [*words[:at], *words[at + 2 :], *larger, "--fps", "24", "--late-start", "1"]


@contextmanager
def engine_of(world: list[str], *argv: str) -> Iterator[DenoiserEngine]:
    engine = DenoiserEngine(settings_for(world, *argv))
    engine.load()
    engine.make_ready_for(24)
    try:
        yield engine
    finally:
        if isinstance(engine.device, TorchDevice) and engine.device.members is not None:
            engine.device.members.close()
            dist.destroy_process_group()


def test_the_engine_s_clips(world: list[str]) -> None:
    """Clips that follow others, starting late, of two avatars. A lost member is told between clips."""
    wanted = [clip("s", seq, seed=seq, avatar=name) for seq, name in enumerate(("ann", "ann", "bob"))]
    with engine_of(world, "--gpu-devices", "cpu") as engine:
        made_alone = [make(engine, each) for each in wanted]
    with engine_of(world, "--gpu-devices", "cpu+cpu", "--compile-unet") as engine:
        assert engine.info()["compiled"] is True
        assert str(engine.info()["device"]).startswith("team of 2 led by cpu")
        for each, before in zip(wanted, made_alone, strict=True):
            assert differ(make(engine, each), before) < 1e-3  # latents travel as float16
        engine.check()
        assert isinstance(engine.device, TorchDevice) and engine.device.members is not None
        os.kill(engine.device.members.pids()[0], signal.SIGKILL)
        until = time.monotonic() + 20
        with pytest.raises(DeviceLost, match="was killed by signal 9"):
            while time.monotonic() < until:
                engine.check()
                time.sleep(0.05)
        with pytest.raises(DeviceLost):
            make(engine, clip("s", 3))


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--gpu-devices", "cpu+cpu"], "a team needs --compile-unet"),
        (["--gpu-devices", "cpu+cpu", "--compile-unet", "--cfg", "2"], "a team has no guidance"),
        (
            ["--gpu-devices", "cpu+cpu+cpu+cpu", "--compile-unet", "--fps", "12"],
            "4 devices cannot share a clip of 6",
        ),
        (["--gpu-devices", "cpu+cpu+cpu+cpu+cpu"], "5 devices; a team has 2, 3, 4 or 6"),
        (["--gpu-devices", "cpu+cuda:7"], "cuda:7: this machine has"),
        (["--gpu-devices", "cpu+auto"], "auto: not a device"),
    ],
)
def test_a_team_that_cannot_be(world: list[str], argv: list[str], words: str) -> None:
    with pytest.raises(SettingsError, match=f"--gpu-devices .*{words}"):
        DenoiserEngine(settings_for(world, *argv)).load()
