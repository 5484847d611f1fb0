"""Whisper as a GPU runs it: the same features, clip by clip, and from the second start on no transformers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from audio_worker import gpu_features
from audio_worker.features import FeatureExtractor
from audio_worker.gpu_features import (
    EncoderNumbers,
    KeptEncoder,
    RecordedFeatures,
    load_on_device,
    load_on_gpu,
)
from audio_worker.sessions import DueClip
from audio_worker.whisper import SpeechEncoder
from protocol.model.config import ModelConfig
from protocol.process.settings import ROOT, Settings, load_settings
from tests.audio_worker.placeholders import write_config

CPU = torch.device("cpu")


def due(seed: int, frames: int = 12) -> DueClip:
    samples = (np.random.default_rng(seed).standard_normal(24000) * 0.1).astype(np.float32)
    return DueClip("a", 0, seed, 8000 * seed, 24, frames, "anna", "calm", samples, 0.0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow encoder of two blocks, since the padded window costs twenty times the short one."""
    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("whisper") / "whisper_encoder.safetensors"
    encoder = SpeechEncoder("padded", width=64, heads=1, layers=2)
    save_file({name: value.contiguous() for name, value in encoder.encoder.state_dict().items()}, file)
    return file


@pytest.fixture
def settings(tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_config(tmp_path, audio_model_path=str(weights))
    return load_settings(["--config", str(tmp_path / "config.yaml")], {})


def close(got: list[np.ndarray], wanted: list[np.ndarray]) -> None:
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype == np.float16
        error = np.linalg.norm(a.astype(float) - b.astype(float)) / np.linalg.norm(b.astype(float))
        assert error < 1e-3


def test_features_are_those_of_transformers(weights: Path) -> None:
    extractor = FeatureExtractor(str(weights), "padded", 2, CPU, torch.float32)
    recorded = RecordedFeatures(extractor.encoder, EncoderNumbers(torch.float32, extractor.n_mels), 2, CPU)
    clips = [due(1), due(2, 4), due(3, 6)]
    close(recorded.tokens(clips), extractor.tokens(clips))
    close(recorded.tokens(clips[::-1]), extractor.tokens(clips[::-1]))
    assert recorded.warm_up(8) > 0
    assert recorded.facts() | {"device": "cpu"} == extractor.facts()


def test_the_kept_encoder_is_the_same(weights: Path, settings: Settings) -> None:
    config = ModelConfig.load(settings.config)
    extractor = FeatureExtractor(str(weights), "padded", 2, CPU, torch.float32)
    kept = KeptEncoder(settings, config, CPU)
    assert kept.load() is None
    kept.store(extractor.encoder, extractor.n_mels)
    found = kept.load()
    assert found is not None and found[1].n_mels == 80
    clips = [due(1), due(2, 4)]
    close(RecordedFeatures(*found, 2, CPU).tokens(clips), extractor.tokens(clips))


def test_a_damaged_file_is_made_anew(weights: Path, settings: Settings) -> None:
    config = ModelConfig.load(settings.config)
    kept = KeptEncoder(settings, config, CPU)
    extractor = FeatureExtractor(str(weights), "padded", 2, CPU, torch.float32)
    kept.store(extractor.encoder, extractor.n_mels)
    [file] = (Path.home() / ".cache/echomimic-live/whisper").glob("*.pt")
    file.write_bytes(file.read_bytes()[:1000])
    assert kept.load() is None


def test_the_second_start_imports_no_transformers(weights: Path, settings: Settings) -> None:
    extractor = FeatureExtractor(str(weights), "padded", 2, CPU, torch.float32)
    kept = KeptEncoder(settings, ModelConfig.load(settings.config), CPU)
    kept.store(extractor.encoder, extractor.n_mels)
    code = f"""
import sys, torch
from audio_worker.gpu_features import KeptEncoder, RecordedFeatures
from audio_worker.graph_features import silent_clip
from protocol.model.config import ModelConfig
from protocol.process.settings import load_settings
settings = load_settings(["--config", {str(settings.config)!r}], {{}})
found = KeptEncoder(settings, ModelConfig.load(settings.config), torch.device("cpu")).load()
RecordedFeatures(*found, 2, torch.device("cpu")).tokens([silent_clip()])
assert "transformers" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=120)


def test_a_cpu_is_left_to_the_usual_way(settings: Settings) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert load_on_gpu(ModelConfig.load(settings.config), settings) is None


@pytest.mark.parametrize("fails", ["kept", "recording"])
def test_whatever_fails_something_serves(
    weights: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Played with a CPU in the GPU's place."""
    monkeypatch.setattr(gpu_features, "choose_dtype", lambda settings, device: torch.float32)
    config = ModelConfig.load(settings.config)
    first = load_on_device(config, settings, CPU)
    assert isinstance(first, RecordedFeatures)
    if fails == "kept":
        [file] = (Path.home() / ".cache/echomimic-live/whisper").glob("*.pt")
        file.write_bytes(b"no network")
        assert isinstance(load_on_device(config, settings, CPU), RecordedFeatures)
        assert file.stat().st_size > 1000
        return

    def refuse(*_args: object) -> None:
        raise RuntimeError("no graphs here")

    monkeypatch.setattr(gpu_features, "RecordedFeatures", refuse)
    assert isinstance(load_on_device(config, settings, CPU), FeatureExtractor)
