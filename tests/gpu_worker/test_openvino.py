"""The denoiser by OpenVINO: its latents, the choice between it and torch, and the fall-back."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from gpu_worker.denoiser.model import ReferenceCache
from gpu_worker.denoiser.pipeline import ClipDenoiser
from gpu_worker.engine import load as loading
from gpu_worker.engine.cpu_denoiser import CpuDenoiser
from gpu_worker.engine.openvino import flat_reference, traced_denoiser
from gpu_worker.engine.serve import DenoiserEngine
from protocol.model.cpu_graph import CpuEngine, GraphUnavailable
from protocol.process.settings import load_settings
from tests.gpu_worker.engine_world import settings_for, write_world
from tests.gpu_worker.test_clip_denoiser import FRAMES, conditions, difference, small_models

pytestmark = pytest.mark.slow


def noise(side: int = 8, seed: int = 5) -> torch.Tensor:
    return torch.randn(FRAMES, 8, side, side, generator=torch.Generator().manual_seed(seed))


def denoiser_of(plain: ClipDenoiser, folder: Path) -> CpuDenoiser:
    return traced_denoiser(plain, CpuEngine(True, folder, 1))


def sample(
    denoiser: CpuDenoiser,
    latents: torch.Tensor,
    tokens: torch.Tensor,
    pose: torch.Tensor,
    reference: ReferenceCache,
    start: int = 0,
) -> torch.Tensor:
    """A clip's latents, with the arguments of `ClipDenoiser.sample`."""
    a, b, c, d = (x.float().numpy() for x in (latents, tokens, pose, flat_reference(reference)))
    return torch.from_numpy(denoiser.sample(a, b, c, d, start))


@pytest.mark.parametrize("shift", [0, 3])
def test_every_start_and_every_reference_give_torchs_latents(tmp_path: Path, shift: int) -> None:
    pytest.importorskip("openvino")
    plain = ClipDenoiser(small_models(window_shift=shift))
    given = conditions(plain)
    tokens, pose, reference = given["tokens"], given["pose_features"], given["reference"]
    other = plain.prepare_reference(np.zeros((16, 16, 3), np.uint8)).reference
    by_openvino = denoiser_of(plain, tmp_path)
    by_openvino.prepare(FRAMES, 8, 8, tokens.shape[1])
    assert by_openvino.prepared(FRAMES, 8, 8, tokens.shape[1])
    assert not by_openvino.prepared(FRAMES - 1, 8, 8, tokens.shape[1])
    audio = plain.project_audio(tokens)
    made = {}
    for name, ref in {"first": reference, "other": other}.items():
        for start in (0, 2):
            made[name, start] = sample(by_openvino, noise(), tokens, pose, ref, start)
            wanted = plain.sample(noise(), audio, pose, ref, start)
            assert difference(made[name, start], wanted) <= 1e-5
    assert difference(made["first", 0], made["other", 0]) > 1e-3


def test_a_kept_network_serves_the_next_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino")
    plain = ClipDenoiser(small_models())
    given = conditions(plain)
    inputs = (given["tokens"], given["pose_features"], given["reference"])
    shape = (FRAMES, 8, 8, inputs[0].shape[1])
    first = denoiser_of(plain, tmp_path)
    first.prepare(*shape)
    monkeypatch.setattr(openvino, "convert_model", lambda *args, **kwargs: pytest.fail("converted again"))
    second = denoiser_of(plain, tmp_path)
    second.prepare(*shape)
    assert torch.equal(sample(first, noise(), *inputs), sample(second, noise(), *inputs))
    monkeypatch.undo()
    (kept,) = tmp_path.glob("*.blob")
    kept.write_bytes(b"damaged")
    third = denoiser_of(plain, tmp_path)
    third.prepare(*shape)
    assert torch.equal(sample(first, noise(), *inputs), sample(third, noise(), *inputs))


def test_one_network_makes_clips_of_any_length(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    plain = ClipDenoiser(small_models())
    made = denoiser_of(plain, tmp_path)
    given = conditions(plain)
    tokens, pose, reference = given["tokens"], given["pose_features"], given["reference"]
    assert made.cold([1, 2, 5]) == []
    made.prepare_any_length(1, 8, 8, tokens.shape[1])
    assert made.cold([1, 2, 5]) == [1, 2, 5]
    warmed = (x.numpy() for x in (noise()[:2], tokens[:2], pose[:2], flat_reference(reference)))
    made.warm(*warmed)
    assert made.cold([1, 2, 5]) == [1, 5]
    for frames in (1, 2, 5):
        rows = torch.arange(frames) % len(noise())
        clip = (noise()[rows], tokens[rows], pose[rows], reference)
        assert made.prepared_frames(frames)
        exact = plain.sample(clip[0], plain.project_audio(clip[1]), *clip[2:])
        assert difference(sample(made, *clip), exact) <= 1e-5
    made.prepare(FRAMES, 8, 8, tokens.shape[1])
    assert made.cold([1, 2, len(noise()), 5, 7]) == [7], "clips of its own length have a network"
    assert len(list(tmp_path.glob("*.blob"))) == 2
    other = denoiser_of(plain, tmp_path)
    other.prepare_any_length(FRAMES, 8, 8, tokens.shape[1])
    assert len(list(tmp_path.glob("*.blob"))) == 2, "the kept network serves whatever length asks for it"


def test_guidance_is_left_to_torch(tmp_path: Path) -> None:
    with pytest.raises(GraphUnavailable, match="unconditional half"):
        denoiser_of(ClipDenoiser(small_models(), guidance_scale=2.0), tmp_path)


# ------------------------------------------------------------------ the engine, with the bundled model

BUNDLED = (
    "--gpu-devices",
    "cpu",
    "--threads",
    "1",
    "--dtype",
    "float32",
    "--fps",
    "24",
    "--clip-frames",
    "4",
)


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DenoiserEngine]:
    """A function that loads the bundled model with further flags. Its cache is removed with the test."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr("gpu_worker.engine.serve.POSE_WARM_SECONDS", {"cpu": 0.0})

    def load(*argv: str) -> DenoiserEngine:
        made = DenoiserEngine(load_settings([*BUNDLED, *argv], env={}))
        made.load()
        return made

    return load


def clips(engine: DenoiserEngine) -> np.ndarray:
    """The latents of two clips, of which the second follows the first."""
    made = [engine.denoise(engine.prepare(engine.trial_clip("one", seq, 24))) for seq in range(2)]
    return np.stack(made).astype(np.float32)


@pytest.mark.slow
def test_the_bundled_model_gives_the_same_latents(bundled: Callable[..., DenoiserEngine]) -> None:
    pytest.importorskip("openvino")
    by_torch = bundled("--cpu-engine", "torch")
    by_openvino = bundled("--cpu-engine", "openvino")
    assert (by_torch.info()["cpu_engine"], by_openvino.info()["cpu_engine"]) == ("torch", "openvino")
    by_openvino.make_ready_for(24)
    wanted, made = clips(by_torch), clips(by_openvino)
    # The worker's latents are float16, so most are equal and the others differ by a last bit, 5e-4 of them.
    # Each library encodes avatar and pose too. The prediction alone is judged below.
    assert np.linalg.norm(made - wanted) / np.linalg.norm(wanted) <= 2e-4
    prepared = by_torch.prepare(by_torch.trial_clip("two", 0, 24))
    reference = by_torch.model.avatars.get("default").reference
    plain = by_torch.model.denoiser
    exact = plain.sample(prepared.noise, plain.project_audio(prepared.tokens), prepared.pose, reference)
    inputs = (prepared.noise, prepared.tokens, prepared.pose, reference)
    assert difference(sample(by_openvino.model.denoiser, *inputs), exact) <= 1e-5


@pytest.mark.slow
def test_torch_denoises_where_openvino_cannot_be_imported(
    bundled: Callable[..., DenoiserEngine], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    made = bundled("--cpu-engine", "openvino")
    assert made.info()["cpu_engine"] == "torch"
    assert caplog.text.count("denoising by torch, OpenVINO cannot serve: OpenVINO cannot be imported") == 1
    assert np.isfinite(clips(made)).all()


# ------------------------------------------------------------------ a model that ships no networks


@pytest.fixture
def traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., DenoiserEngine]:
    """A function that loads a tiny random model with further flags."""
    world = write_world(tmp_path)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)

    def load(*argv: str) -> DenoiserEngine:
        made = DenoiserEngine(settings_for(world, "--cpu-engine", "auto", "--fps", "24", *argv))
        made.load()
        return made

    return load


@pytest.mark.parametrize(("by_torch", "by_openvino", "engine"), [(2.0, 1.0, "openvino"), (1.0, 1.0, "torch")])
def test_the_faster_library_denoises(
    traced: Callable[..., DenoiserEngine],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    by_torch: float,
    by_openvino: float,
    engine: str,
) -> None:
    pytest.importorskip("openvino")
    caplog.set_level("INFO")
    monkeypatch.setattr(loading, "best_times", lambda tasks: [by_torch, by_openvino])
    assert traced("--clip-frames", "4").info()["cpu_engine"] == engine
    assert "a clip takes torch" in caplog.text


def test_torch_denoises_shapes_that_openvino_fails_for(
    traced: Callable[..., DenoiserEngine], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    openvino = pytest.importorskip("openvino")
    made = traced("--cpu-engine", "openvino", "--clip-frames", "6")

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no such operation")

    monkeypatch.setattr(openvino, "convert_model", fail)
    made.make_ready_for(8)
    assert "no network for clips of 2 frames, OpenVINO fails: no such operation" in caplog.text
    assert np.isfinite(made.denoise(made.prepare(made.trial_clip("one", 0, 8)))).all()
