"""Whisper without torch: the spectrogram in numpy, the kept network, and the choice between the libraries."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from audio_worker import features as by_torch
from audio_worker.features import FeatureExtractor
from audio_worker.graph_features import GraphFeatures
from audio_worker.mel import SHORT_WINDOW_FLOOR, mel_filters, short_log_mel
from audio_worker.whisper import SpeechEncoder
from audio_worker.worker import AudioWorker
from protocol.process.settings import ROOT, load_settings
from tests.audio_worker.test_features import due

#: The largest error of a spectrogram against the official code's, as for transformers' extractor.
MOST_MEL_ERROR = 1e-4
START = """
import sys
from types import SimpleNamespace
from audio_worker.worker import AudioWorker
from protocol.process.settings import load_settings
worker = AudioWorker(load_settings(sys.argv[1:], env={}), SimpleNamespace())
worker.warm_up()
print("torch" in sys.modules, "transformers" in sys.modules)
"""


def windows() -> dict[str, np.ndarray]:
    """Sounds of 1.5 s: noise, a tone, a click, silence, and loud beside quiet."""
    draw = np.random.default_rng(0)
    time = np.arange(24000) / 16000
    click = np.zeros(24000)
    click[7000] = 1.0
    loud = draw.standard_normal(24000) * np.where(time < 0.7, 1e-4, 0.3)
    sounds = {"noise": draw.standard_normal(24000) * 0.1, "tone": np.sin(2 * np.pi * 440 * time)}
    sounds |= {"click": click, "silence": np.zeros(24000), "loud": loud}
    return {name: sound.astype(np.float32) for name, sound in sounds.items()}


@pytest.mark.parametrize("n_mels", [80, 128])
def test_the_spectrogram_is_transformers(n_mels: int) -> None:
    reference = SpeechEncoder("short", width=64, heads=1, layers=1, n_mels=n_mels)
    filters = reference._log_mel.mel_filters
    np.testing.assert_allclose(mel_filters(n_mels), filters, atol=1e-9)
    for name, pcm in windows().items():
        wanted = reference.spectrogram(torch.from_numpy(pcm)[None])[0].numpy()
        made = short_log_mel(pcm, n_mels)
        assert made.shape == (n_mels, 150) and made.dtype == np.float32
        assert np.abs(made - wanted).max() <= MOST_MEL_ERROR, name
    silence = short_log_mel(np.zeros(24000, np.float32), n_mels)
    assert (silence == np.float32(SHORT_WINDOW_FLOOR)).all()


def test_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="pcm must be"):
        short_log_mel(np.zeros(100, np.float32), 80)


def warm(*flags: str) -> Any:
    """The features of a worker that has warmed up."""
    stage: Any = SimpleNamespace()
    worker = AudioWorker(load_settings(["--threads", "1", *flags], env={}), stage)
    worker.warm_up()
    assert worker._features is not None
    return worker._features.whisper


def test_the_second_start_serves_the_kept_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    flags = ("--dtype", "float32", "--cpu-engine", "openvino")
    first = warm(*flags)
    monkeypatch.setattr(by_torch, "load_features", lambda *_: pytest.fail("loaded by torch"))
    second = warm(*flags)
    assert isinstance(second, GraphFeatures)
    assert (first.facts(), second.facts()["cpu_engine"]) == (second.facts(), "openvino")
    clips = [due(1), due(2, 12, 6, "b")]
    monkeypatch.undo()
    wanted = warm(*flags, "--cpu-engine", "torch").tokens(clips)
    for one, other, exact in zip(first.tokens(clips), second.tokens(clips), wanted, strict=True):
        assert one.dtype == np.float16
        np.testing.assert_array_equal(one, other)
        error = np.linalg.norm(one.astype(float) - exact) / np.linalg.norm(exact.astype(float))
        print(f"whisper: by OpenVINO in float32 rel err {error:.1e}")
        assert error < 1e-3
    (record,) = tmp_path.rglob("whisper-*.json")
    record.write_text('{"serves": "torch"}')
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    assert isinstance(warm(*flags), FeatureExtractor)


@pytest.mark.parametrize(
    ("openvino", "torchs", "serves"), [(1.0, 2.0, GraphFeatures), (1.0, 1.01, FeatureExtractor)]
)
def test_the_faster_library_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, openvino: float, torchs: float, serves: type
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(by_torch, "best_times", lambda tasks: [openvino, torchs])
    assert isinstance(warm(), serves)


def test_torch_serves_where_openvino_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert isinstance(warm("--cpu-engine", "openvino"), FeatureExtractor)
    assert "Whisper by torch, OpenVINO cannot serve: " in caplog.text
    assert not list(tmp_path.rglob("whisper-*.json"))  # the next start tries again


@pytest.mark.process
def test_forced_openvino_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    command = [sys.executable, "-c", START, "--cpu-engine", "openvino", "--threads", "1"]
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    made = [
        subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=100
        ).stdout.split()
        for _ in range(2)
    ]
    assert made == [["False", "False"]] * 2
