"""Whisper without torch: the spectrogram in numpy, the kept network, and the choice between the libraries."""

from __future__ import annotations

import json
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
from protocol.model import timed_apart
from protocol.process.settings import ROOT, Settings, load_settings
from tests.audio_worker.test_features import due
from tests.helpers.broken_torch import KILLED, UNLOADABLE, break_torch

#: The largest error of a spectrogram against the official code's, as for transformers' extractor.
MOST_MEL_ERROR = 1e-4
START = """
import logging
import sys
from types import SimpleNamespace
from audio_worker.worker import AudioWorker
from protocol.process.settings import load_settings
logging.basicConfig(level=logging.INFO)
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

    def ask_here(function: str, settings: Settings, facts: dict[str, Any], **named: Any) -> Any:
        assert function == f"{by_torch.__name__}:{by_torch.time_whisper.__name__}"
        return by_torch.time_whisper(settings, **facts)

    monkeypatch.setattr(timed_apart, "ask_apart", ask_here)
    assert isinstance(warm(), serves)
    monkeypatch.setattr(timed_apart, "ask_apart", lambda *given, **named: pytest.fail("timed again"))
    assert isinstance(warm(), serves)


def test_torch_serves_where_openvino_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert isinstance(warm("--cpu-engine", "openvino"), FeatureExtractor)
    assert "Whisper by torch, OpenVINO cannot serve: " in caplog.text
    assert not list(tmp_path.rglob("whisper-*.json"))  # the next start tries again


def start(home: Path, *flags: str, path: Path | None = None) -> tuple[list[str], str]:
    """Whether a worker's start imports torch and transformers, and its log.

    Args:
        home: holds what is kept for the next start.
        flags: of the worker.
        path: a folder that comes before the installed packages.
    """
    pytest.importorskip("openvino")
    home.mkdir(exist_ok=True)
    made = subprocess.run(
        [sys.executable, "-c", START, "--threads", "1", *flags],
        cwd=ROOT,
        env={"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(path or "")},
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
    )
    return made.stdout.split(), made.stderr


@pytest.mark.process
def test_forced_openvino_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    made = [start(tmp_path, "--cpu-engine", "openvino")[0] for _ in range(2)]
    assert made == [["False", "False"]] * 2


@pytest.mark.process
def test_a_first_start_times_torch_in_a_process_that_ends(tmp_path: Path) -> None:
    imported, log = start(tmp_path)
    assert "a clip takes torch" in log
    (record,) = tmp_path.rglob("whisper-*.json")
    serves = json.loads(record.read_text())["serves"]
    assert imported == ["False", "False"] if serves == "openvino" else ["True", "True"]
    again, later = start(tmp_path)
    assert again == imported
    assert "a clip takes torch" not in later


@pytest.mark.process
@pytest.mark.parametrize(
    ("program", "why"),
    [(KILLED, "signal 9 (SIGKILL): killed"), (UNLOADABLE, "OSError: libtorch_cpu.so: cannot allocate")],
)
def test_openvino_serves_where_torch_cannot_be_timed(tmp_path: Path, program: str, why: str) -> None:
    home, folder = tmp_path / "home", break_torch(tmp_path / "broken", program)
    imported, log = start(home, path=folder)
    assert imported == ["False", "False"]
    assert f"Whisper by OpenVINO, torch was not timed: {why}" in log
    assert not list(home.rglob("whisper-*.json"))  # nothing was measured, and the next start tries again


def test_arithmetic_that_openvino_lacks_is_torchs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(timed_apart, "ask_apart", lambda *given, **named: pytest.fail("was timed"))
    assert isinstance(warm("--dtype", "float16"), FeatureExtractor)
    assert "OpenVINO does not compute in float16" in caplog.text
