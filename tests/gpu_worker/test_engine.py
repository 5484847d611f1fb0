"""The engine in this process, with a tiny random model in the official layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpu_worker.engine.compiled import ClipSampler
from gpu_worker.engine.device import device_errors
from gpu_worker.engine.serve import DenoiserEngine
from gpu_worker.engine.still_parts import stilled
from gpu_worker.engine_api import ClipError, DeviceLost
from gpu_worker.fast import FastDenoiser
from protocol.process.settings import SettingsError, load_settings
from protocol.wire.messages import Clip
from tests.gpu_worker.engine_world import QUICK, SIDE, clip, differ, make, settings_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def engine(world: list[str]) -> DenoiserEngine:
    made = DenoiserEngine(settings_for(world))
    made.load()
    return made


def test_says_what_it_serves(engine: DenoiserEngine) -> None:
    info = engine.info()
    assert info["avatars"] == ["ann", "bob", "cat"]
    assert info["poses"] == ["rest", "wave"]
    assert (info["width"], info["height"], info["steps"]) == (SIDE, SIDE, 2)
    assert info["dtype"] == "float32"
    assert str(info["device"]).startswith("cpu")
    assert "scaled_dot_product_attention" in str(info["attention"])


@pytest.mark.parametrize("frames", [12, 6, 4])
def test_a_clip_of_any_rate(engine: DenoiserEngine, frames: int) -> None:
    made = make(engine, clip("rates", 0, frames=frames))
    assert made.shape == (frames, 4, SIDE // 8, SIDE // 8)
    assert made.dtype == np.float16
    assert np.isfinite(made).all()


def test_a_clip_sent_again_is_the_same_clip(engine: DenoiserEngine) -> None:
    first = [make(engine, clip("again", seq, seed=seq)) for seq in range(4)]
    assert np.array_equal(make(engine, clip("again", 3, seed=3)), first[3])
    assert np.array_equal(make(engine, clip("again", 2, seed=2)), first[2])


@pytest.mark.parametrize("path", ["plain", "fast", "openvino"])
def test_every_clip_of_a_session_starts_from_its_noise(
    world: list[str], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """`--session-state session-noise`: also in a later epoch, in another session and in another worker."""
    engine = engine_by(path, world, "--session-state", "session-noise")
    clips = [clip("a", 0, frames=4), clip("a", 1, frames=4), clip("a", 5, frames=4, epoch=2)]
    starts, _ = watched_clips(engine, [*clips, clip("b", 0, frames=4)], monkeypatch)
    noise = np.array(engine.prepare(clips[0]).noise)
    assert all(np.array_equal(start, noise) for start in starts)
    other = engine_by(path, world, "--session-state", "session-noise")
    assert differ(make(other, clips[1]), make(engine, clips[1])) < 1e-3


@pytest.mark.parametrize("path", ["plain", "fast", "openvino"])
def test_every_clip_may_start_from_zeros(
    world: list[str], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """`--session-state zero-noise`: all ways of sampling start from zeros, and hold still parts alike."""
    engine = engine_by(path, world, "--session-state", "zero-noise")
    clips = [clip("a", 0, frames=4), clip("a", 1, frames=4), clip("b", 1, frames=4)]
    starts, ends = watched_clips(engine, clips, monkeypatch)
    assert not any(start.any() for start in starts)
    assert np.array_equal(ends[1], ends[2])
    before = None
    for each, end in zip(clips[:2], ends, strict=False):
        shown = make(engine, each)  # sent again: it follows the same clip
        assert differ(stilled(end.astype(np.float16), before), shown) < 1e-3
        before = shown[-1].astype(np.float32)


def engine_by(path: str, world: list[str], *argv: str) -> DenoiserEngine:
    """An engine that makes clips of four frames by plain torch, the GPU's fast path or OpenVINO."""
    if path == "openvino":
        pytest.importorskip("openvino")
        engine = DenoiserEngine(settings_for(world, *QUICK, "--cpu-engine", "openvino", *argv))
        engine.load()
        assert engine.info()["cpu_engine"] == "openvino"
        return engine
    engine = DenoiserEngine(settings_for(world, *QUICK, *argv))
    engine.load()
    if path == "fast":
        fast = FastDenoiser(engine.model.denoiser.models, steps=2)
        given = engine.prepare(clip("fast", 0, frames=4))
        reference = engine.model.avatars.get("ann").reference
        fast.prepare(given.noise, given.tokens, given.pose, reference)
        assert isinstance(engine.sampler, ClipSampler)
        engine.sampler._fast = fast
    return engine


def watched_clips(
    engine: DenoiserEngine, clips: list[Clip], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Makes the clips. Returns the latents that sampling began at and those that it ended at."""
    fast = engine.sampler._fast if isinstance(engine.sampler, ClipSampler) else None
    denoiser = fast or engine.model.denoiser
    starts, ends = [], []
    sample = denoiser.sample

    def watched(latents: Any, *rest: Any) -> Any:
        starts.append(np.array(latents))
        made = sample(latents, *rest)
        ends.append(np.array(made))
        return made

    monkeypatch.setattr(denoiser, "sample", watched)
    for each in clips:
        make(engine, each)
    return starts, ends


def test_a_clip_follows_the_one_before(world: list[str]) -> None:
    engine = DenoiserEngine(settings_for(world, "--session-state", "seed-mix"))
    engine.load()
    make(engine, clip("follow", 0))
    following = make(engine, clip("follow", 1, seed=1))
    engine.close("follow", 0)
    alone = make(engine, clip("follow", 1, seed=1))
    assert differ(following, alone) > 1e-3
    engine.close("follow", 0)
    # a gap is not bridged
    make(engine, clip("follow", 0))
    make(engine, clip("follow", 1, seed=1))
    gap = make(engine, clip("follow", 3, seed=1))
    engine.close("follow", 0)
    assert np.array_equal(gap, make(engine, clip("follow", 3, seed=1)))


@pytest.mark.parametrize("path", ["plain", "fast", "openvino"])
def test_a_clip_starts_from_the_one_before_and_noise(
    world: list[str], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """`--session-state seed-mix`: 0.6 of the last latent of the clip before, 0.4 of the clip's own noise."""
    engine = engine_by(path, world, "--session-state", "seed-mix")
    clips = [clip("mix", seq, frames=4, seed=seq) for seq in (0, 1)]
    noise = [np.array(engine.prepare(each).noise) for each in clips]
    starts, ends = watched_clips(engine, clips, monkeypatch)
    assert np.array_equal(starts[0], noise[0])
    np.testing.assert_allclose(starts[1][0], 0.6 * ends[0][-1] + 0.4 * noise[1][0], atol=1e-5)
    assert np.array_equal(starts[1][1:], noise[1][1:])


def test_without_latent_preservation_clips_stand_alone(engine: DenoiserEngine, world: list[str]) -> None:
    other = DenoiserEngine(settings_for(world, "--no-use-init-latent", *QUICK))
    other.load()
    make(other, clip("alone", 0))
    following = make(other, clip("alone", 1))
    other.close("alone", 0)
    assert np.array_equal(following, make(other, clip("alone", 1)))
    assert differ(following, make(engine, clip("alone", 1))) > 1e-3  # which has the session's noise


def test_every_condition_has_its_effect(engine: DenoiserEngine) -> None:
    plain = make(engine, clip("same", 0))
    for changes in (
        {"avatar": "bob"},
        {"pose": "wave"},
        {"tokens": clip("same", 0, seed=9).tokens},
    ):
        engine.close("same", 9)
        assert differ(make(engine, replace(clip("same", 0), **changes)), plain) > 1e-4, changes
    assert np.array_equal(make(engine, clip("same", 0, avatar="default", pose="default")), plain)
    assert np.array_equal(make(engine, clip("same", 0, epoch=1)), plain)


def test_a_silent_clip_is_made_once(engine: DenoiserEngine) -> None:
    """For every session, each time the pose comes round; the clip after it follows its last latent."""
    quiet = [clip("quiet", seq, silent=True) for seq in range(3)]
    assert engine.rest(quiet[0]) is None
    made = [make(engine, one) for one in quiet[:2]]
    again = clip("other", 7, pts=2 * 16000, avatar="default", pose="default", silent=True)
    for one in (again, quiet[2]):  # poses of 24 frames loop after a second
        latents = engine.rest(one)
        assert latents is not None and np.array_equal(latents, made[0])
    before = engine._last_latents.before("other", 0, 8)
    assert before is not None and np.array_equal(before.astype(np.float16), made[0][-1])
    for changes in ({"pose": "wave"}, {"avatar": "bob"}, {"fps": 12}, {"pts": 1000}):
        assert engine.rest(replace(quiet[0], **changes)) is None, changes
    assert engine.rest(replace(quiet[0], avatar="nobody")) is None  # `prepare` tells the session
    assert make(engine, clip("other", 8, pts=8000)).shape == made[0].shape


def test_pose_follows_pts(engine: DenoiserEngine) -> None:
    """Poses of 24 frames loop after a second."""
    engine.close("pts", 0)
    plain = engine.prepare(clip("pts", 0))
    assert torch.equal(engine.prepare(clip("pts", 0, pts=16000)).pose, plain.pose)
    assert not torch.equal(engine.prepare(clip("pts", 0, pts=8000)).pose, plain.pose)
    slow = engine.prepare(clip("pts", 0, frames=6, fps=12))
    assert torch.equal(slow.pose, plain.pose[::2])


@pytest.mark.parametrize(
    ("changes", "words", "fatal"),
    [
        ({"avatar": "zoe"}, "no avatar zoe; there are ann, bob, cat", True),
        ({"pose": "jump"}, "no pose jump; there are rest, wave", True),
        ({"tokens": np.zeros((12, 30, 384), np.float16)}, "30 audio tokens a frame, it must be 50", True),
        ({"tokens": np.zeros((40, 50, 384), np.float16)}, "40 frames: this model takes 32", True),
        ({"tokens": np.full((12, 50, 384), np.nan, np.float16)}, "not all finite", False),
    ],
)
def test_what_cannot_be_made_says_why(
    engine: DenoiserEngine, changes: dict[str, Any], words: str, fatal: bool
) -> None:
    with pytest.raises(ClipError, match=words) as caught:
        engine.prepare(clip("bad", 0, **changes))
    assert caught.value.fatal is fatal


def test_latents_that_are_not_finite_go_nowhere(
    engine: DenoiserEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(engine, clip("nan", 0))
    with monkeypatch.context() as patch:
        patch.setattr(engine.model.denoiser, "sample", lambda latents, *_: latents * float("nan"))
        with pytest.raises(ClipError, match="latents are not all finite"):
            make(engine, clip("nan", 1))
    # the next clip starts from noise, not from them
    after = make(engine, clip("nan", 2))
    engine.close("nan", 0)
    assert np.array_equal(after, make(engine, clip("nan", 2)))


@pytest.mark.parametrize(
    ("raised", "device", "wanted"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "cpu", ClipError),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "cuda", DeviceLost),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "cpu", RuntimeError),
        (RuntimeError("shapes do not fit"), "cuda", RuntimeError),
    ],
)
def test_errors_of_the_device_are_told_apart(raised: Exception, device: str, wanted: type[Exception]) -> None:
    with pytest.raises(Exception, match=r".") as caught, device_errors(torch.device(device)):
        raise raised
    assert caught.type is wanted


def test_memory_that_runs_out_costs_one_clip(engine: DenoiserEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(engine.model.denoiser, "sample", no_memory)
        with pytest.raises(ClipError, match="not enough memory on cpu") as caught:
            make(engine, clip("memory", 0))
    assert not caught.value.fatal
    assert np.isfinite(make(engine, clip("memory", 0))).all()


def test_references_and_poses_are_made_once(engine: DenoiserEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    def made_again(_picture: object) -> None:
        raise AssertionError("features are made although they were made in a pause")

    while engine.work_in_pause():
        pass
    monkeypatch.setattr(engine.model.avatars, "_prepare", made_again)
    for name in ("ann", "bob", "cat"):  # those that are on disk are read
        make(engine, clip("once", 0, avatar=name))
    before = engine.metrics()
    for name in ("ann", "bob", "cat"):
        make(engine, clip("once", 0, avatar=name))
    after = engine.metrics()
    assert after["reference_cache_misses_total"] == before["reference_cache_misses_total"]
    assert after["reference_cache_hits_total"] == before["reference_cache_hits_total"] + 3
    assert after["pose_cache_misses_total"] == before["pose_cache_misses_total"]
    assert after["sessions_held"] >= 1


def test_a_trial_clip_is_like_a_real_one(engine: DenoiserEngine) -> None:
    assert [len(engine.trial_clip("x", 0, fps).tokens) for fps in (24, 12, 8)] == [12, 6, 4]
    assert engine.trial_clip("x", 3, 12).pts == 24000


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--width", "72"], "--width 72: this model's pictures have multiples of 64"),
        (["--gpu-devices", "cuda:99"], "--gpu-devices cuda:99: this machine has"),
        (["--gpu-devices", "toaster"], "--gpu-devices toaster: not a device"),
        (["--gpu-devices", "meta"], "--gpu-devices meta: not a device"),
        (["--reference-image", "/nowhere/face.png"], "/nowhere/face.png: no such picture"),
        (["--pose-dir", "/nowhere"], "/nowhere: no such pose"),
    ],
)
def test_settings_that_cannot_work(world: list[str], argv: list[str], words: str) -> None:
    given = [word for word in world if word not in ("--gpu-devices", "cpu", "--pose-dir")]
    given = [word for word in given if not word.endswith("/poses")]
    if "--pose-dir" not in argv:
        given += ["--pose-dir", str(Path(world[1]).parents[2] / "poses")]
    if "--gpu-devices" not in argv:
        given += ["--gpu-devices", "cpu"]
    with pytest.raises(SettingsError, match=words):
        DenoiserEngine(load_settings([*given, *argv], env={})).load()


def test_a_damaged_picture_is_named(world: list[str], tmp_path: Path) -> None:
    picture = tmp_path / "face.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n and nothing more")
    with pytest.raises(SettingsError, match=r"face\.png: cannot be read as a picture"):
        DenoiserEngine(settings_for(world, "--reference-image", str(picture))).load()


def test_late_start_takes_fewer_steps_for_clips_that_follow(
    world: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    late = DenoiserEngine(settings_for(world, *QUICK, "--steps", "3", "--late-start", "2"))
    late.load()
    starts: list[int] = []
    sample = late.model.denoiser.sample

    def counted(*args: Any) -> Any:
        starts.append(args[4])
        return sample(*args)

    monkeypatch.setattr(late.model.denoiser, "sample", counted)
    made = [make(late, clip("late", seq, frames=4, seed=seq)) for seq in range(3)]
    make(late, clip("late", 7, frames=4))
    assert starts == [0, 2, 2, 0]
    # another session's first clip starts from the beginning of this one, where avatar and pose are the same
    second = make(late, clip("second", 0, frames=4, seed=5))
    make(late, clip("third", 0, frames=4, avatar="bob"))
    make(late, clip("fourth", 0, frames=4, avatar="bob"))
    make(late, clip("fifth", 0, frames=4, pose="wave"))
    make(late, clip("_trial", 0, frames=4))  # of noise, and timed with all steps
    assert starts[4:] == [2, 0, 2, 0, 0]
    assert differ(second[:1], made[0][:1]) < 1.0
    # it stays near where the clip before ended, which a clip from noise knows nothing of
    plain = DenoiserEngine(settings_for(world, *QUICK, "--steps", "3"))
    plain.load()
    alone = make(plain, clip("late", 1, frames=4, seed=1))
    assert differ(made[1][1:2], made[0][-1:]) < differ(alone[1:2], made[0][-1:])


def test_late_start_needs_steps_to_skip(world: list[str]) -> None:
    with pytest.raises(SettingsError, match="--late-start 2: there are 2 steps, so at most 1"):
        DenoiserEngine(settings_for(world, *QUICK, "--late-start", "2")).load()
