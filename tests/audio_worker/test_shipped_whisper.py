"""Whisper as the bundled model ships it for OpenVINO: transformers' hidden states, without transformers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from audio_worker.adapter import apply_adapter
from audio_worker.shipped_whisper import shipped_features, sinusoids, whisper_tensors
from audio_worker.whisper import load_whisper
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine
from protocol.process.settings import Settings
from tests.helpers.blocked_torch import run_without_torch

pytest.importorskip("openvino", reason="OpenVINO is not installed here")

START = """
import logging
import sys
from types import SimpleNamespace
from audio_worker.worker import AudioWorker
from protocol.process.settings import SettingsError, load_settings
logging.basicConfig(level=logging.INFO)
stage = SimpleNamespace(warm=True, jobs=SimpleNamespace(ack=None))
worker = AudioWorker(load_settings(sys.argv[1:], env={}), stage)
try:
    worker.warm_up()
    print(worker.info()["cpu_engine"])
except SettingsError as error:
    print("refused:", error)
"""


def bundled() -> ModelConfig:
    return ModelConfig.load(Settings().config)


def test_the_states_are_those_of_transformers(tmp_path: Path) -> None:
    config = bundled()
    made = shipped_features(config, 2, "float32", CpuEngine(True, tmp_path, 1))
    assert made is not None
    encoder = load_whisper(config.audio_model_path, "short")
    assert config.audio_adapter_path is not None
    apply_adapter(encoder, config.audio_adapter_path)
    mel = np.random.default_rng(0).uniform(-0.5, 1.5, (80, 150)).astype(np.float32)
    with torch.inference_mode():
        exact = encoder(torch.from_numpy(mel)[None])[0].numpy()
    states = made.states(mel)
    assert states.shape == exact.shape
    assert np.linalg.norm(states - exact) / np.linalg.norm(exact) <= 1e-5


def test_the_table_of_positions_is_transformers() -> None:
    table = load_whisper(bundled().audio_model_path, "short").encoder.embed_positions.weight
    assert np.abs(sinusoids(75, 384) - table.numpy()).max() < 1e-5


def test_corrections_that_do_not_fit_leave_it_to_torch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = bundled()
    assert config.audio_adapter_path is not None
    corrections = load_file(config.audio_adapter_path)
    plain = whisper_tensors(replace(config, audio_adapter_path=None))
    corrected = whisper_tensors(config)
    layer = "layers.0.fc1"
    change = corrections[f"{layer}.up"].astype(np.float32) @ corrections[f"{layer}.down"].astype(np.float32)
    assert np.allclose(corrected[f"{layer}.weight"] - plain[f"{layer}.weight"], change, atol=1e-6)
    file = tmp_path / "adapter.safetensors"
    save_file({**corrections, f"{layer}.down": corrections[f"{layer}.down"][:1]}, file)
    engine = CpuEngine(True, tmp_path, 1)
    assert shipped_features(replace(config, audio_adapter_path=file), 2, "float32", engine) is None
    assert f"{layer} does not fit" in caplog.text


def test_the_padded_window_is_left_to_torch(tmp_path: Path) -> None:
    config = replace(bundled(), whisper_window="padded")
    assert shipped_features(config, 2, "float32", CpuEngine(True, tmp_path, 1)) is None


def test_a_worker_starts_without_torch(tmp_path: Path) -> None:
    first = run_without_torch(START, home=tmp_path)
    assert first.stdout == "openvino\n", first.stderr
    assert "Whisper by OpenVINO: torch is not installed" in first.stderr
    second = run_without_torch(START, home=tmp_path)
    assert second.stdout == "openvino\n"
    assert "compiled" not in second.stderr


def test_a_worker_that_needs_torch_says_so(tmp_path: Path) -> None:
    made = run_without_torch(START, "--cpu-engine", "torch", home=tmp_path)
    assert made.stdout.startswith("refused: --cpu-engine torch needs PyTorch, which is not installed;")
