"""Piper with a voice file that stands in for a real one. It needs piper-tts and onnx."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from voice_worker.engine_api import Cancellation, VoiceError
from voice_worker.piper import PiperEngine

pytest.importorskip("piper", reason="piper-tts is not installed")
RATE, SAMPLES = 22050, 1024


def write_voice(path: Path) -> Path:
    """A voice with piper's inputs and output: (1, n) phonemes become (1, 1, n · 1024) samples."""
    onnx: Any = pytest.importorskip("onnx", reason="onnx is not installed")
    from onnx import TensorProto, helper, numpy_helper

    wave = (np.arange(SAMPLES, dtype=np.float32) % 100 / 100 - 0.5).reshape(1, 1, SAMPLES)
    nodes = [
        helper.make_node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["floats", "zero"], ["none"]),
        helper.make_node("Unsqueeze", ["none", "last"], ["columns"]),
        helper.make_node("Add", ["columns", "wave"], ["rows"]),
        helper.make_node("Reshape", ["rows", "shape"], ["output"]),
    ]
    whole, number = TensorProto.INT64, TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "voice",
        [
            helper.make_tensor_value_info("input", whole, [1, None]),
            helper.make_tensor_value_info("input_lengths", whole, [1]),
            helper.make_tensor_value_info("scales", number, [3]),
        ],
        [helper.make_tensor_value_info("output", number, [1, 1, None])],
        [
            numpy_helper.from_array(np.zeros((), np.float32), "zero"),
            numpy_helper.from_array(np.array([2]), "last"),
            numpy_helper.from_array(wave, "wave"),
            numpy_helper.from_array(np.array([1, 1, -1]), "shape"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15)], ir_version=8)
    onnx.save(model, str(path))
    letters = {
        symbol: [number] for number, symbol in enumerate("_^$ abcdefghijklmnopqrstuvwxyz.,?!ˈəɛʊɪɑɔɹŋθðʃʒæʌː")
    }
    config = {
        "audio": {"sample_rate": RATE},
        "espeak": {"voice": "en-us"},
        "num_symbols": len(letters),
        "num_speakers": 1,
        "phoneme_id_map": letters,
        "phoneme_type": "espeak",
        "inference": {"noise_scale": 0.6, "length_scale": 1, "noise_w": 0.8},
    }
    Path(f"{path}.json").write_text(json.dumps(config), encoding="utf-8")
    return path


def test_a_voice_file_speaks(tmp_path: Path) -> None:
    engine = PiperEngine(str(write_voice(tmp_path / "voice.onnx")))
    pieces = list(engine.speak("Hello, how are you?", "", Cancellation()))
    assert {rate for rate, _ in pieces} == {RATE}
    sound = np.concatenate([samples for _, samples in pieces])
    assert len(sound) > RATE // 2 and sound.dtype == np.float32 and np.abs(sound).max() > 0.1
    with pytest.raises(VoiceError, match="one voice"):
        list(engine.speak("Hello.", "other", Cancellation()))


def test_a_voice_without_its_description_is_told(tmp_path: Path) -> None:
    (tmp_path / "voice.onnx").write_bytes(b"")
    with pytest.raises(VoiceError, match=r"its \.json beside it"):
        PiperEngine(str(tmp_path / "voice.onnx"))
