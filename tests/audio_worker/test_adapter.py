"""Corrections of Whisper's weights: their effect, and the errors for files that do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from audio_worker.adapter import apply_adapter, linear_layers
from audio_worker.features import FeatureExtractor
from audio_worker.whisper import SpeechEncoder
from demo.factory.make_whisper import DEFAULT_OUT
from protocol.model.checkpoint import CheckpointError

LAYER = "layers.1.fc1"


def small() -> SpeechEncoder:
    torch.manual_seed(0)
    return SpeechEncoder("short", width=16, heads=2, layers=2, n_mels=8)


def written(folder: Path, **changes: Tensor | None) -> Path:
    state: dict[str, Tensor | None] = {
        f"{LAYER}.down": torch.randn(2, 16),
        f"{LAYER}.up": torch.randn(64, 2),
    }
    state |= {f"{LAYER}.{part}": value for part, value in changes.items()}
    path = folder / "adapter.safetensors"
    save_file({key: value for key, value in state.items() if value is not None}, path)
    return path


def test_a_correction_is_added_to_its_layer_alone(tmp_path: Path) -> None:
    encoder, plain = small(), small()
    down, up = torch.randn(2, 16), torch.randn(64, 2)
    apply_adapter(encoder, written(tmp_path, down=down.half(), up=up.half()))
    for name, layer in linear_layers(encoder).items():
        change = layer.weight - plain.encoder.get_submodule(name).weight
        expected = up.half().float() @ down.half().float() if name == LAYER else torch.zeros_like(change)
        torch.testing.assert_close(change, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"up": None}, "only one of"),
        ({"sideways": torch.zeros(1)}, "belongs to no linear layer"),
        ({"up": torch.zeros(64, 3)}, "is not the layer's"),
        ({"down": torch.zeros(2, 17)}, "is not the layer's"),
        ({"down": torch.zeros(2)}, "is not the layer's"),
    ],
)
def test_files_that_do_not_fit_are_named(
    tmp_path: Path, changes: dict[str, Tensor | None], words: str
) -> None:
    path, encoder = written(tmp_path, **changes), small()
    with pytest.raises(CheckpointError, match=words) as caught:
        apply_adapter(encoder, path)
    assert str(path) in str(caught.value)
    assert LAYER in str(caught.value)
    for name, layer in linear_layers(small()).items():
        assert torch.equal(encoder.encoder.get_submodule(name).weight, layer.weight)


@pytest.mark.parametrize(
    ("content", "words"), [(None, "no such weights file"), (b"not safetensors", "not a safetensors file")]
)
def test_damaged_files_are_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "adapter.safetensors"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=words) as caught:
        apply_adapter(small(), path)
    assert str(path) in str(caught.value)


def test_the_extractor_hears_with_it(tmp_path: Path) -> None:
    path = tmp_path / "adapter.safetensors"
    name = "layers.3.fc2"
    save_file({f"{name}.down": torch.randn(1, 1536), f"{name}.up": torch.randn(384, 1)}, path)
    pcm = 0.1 * torch.randn(1, 24000)
    features = []
    for adapter in (None, path):
        extractor = FeatureExtractor(
            str(DEFAULT_OUT), "short", 2, torch.device("cpu"), torch.float32, adapter
        )
        features.append(extractor.encoder.features(pcm))
    assert torch.equal(features[0][:, :, :4], features[1][:, :, :4])
    assert not torch.allclose(features[0][:, :, 4], features[1][:, :, 4])
