"""The decoder by OpenVINO: its pictures, the choice between it and torch, and the fall-back."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from encoder_worker import decode
from encoder_worker.decode import ClipDecoder
from encoder_worker.vae.decoders import load_decoder
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine
from protocol.model.vae_folder import VaeFolder
from protocol.process.settings import Settings
from tests.encoder_worker.folders import make_lite

CPU = torch.device("cpu")


def latents(frames: int, channels: int, side: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((frames, channels, side, side)).astype(np.float16)


def pictures(decoder: ClipDecoder, scaled: np.ndarray) -> np.ndarray:
    return np.concatenate(list(decoder.decode(scaled))).astype(int)


def lite(folder: Path, engine: CpuEngine | None) -> ClipDecoder:
    if not (folder / "config.json").exists():
        make_lite(folder)
    decoder = ClipDecoder(load_decoder(VaeFolder.open(folder)), CPU, "float32", engine=engine)
    decoder.warm_up(8, 8)
    return decoder


def forced(folder: Path) -> CpuEngine:
    return CpuEngine(True, folder, 1)


@pytest.mark.slow
def test_the_bundled_decoder_makes_the_same_pictures(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    vae = load_decoder(VaeFolder.of(ModelConfig.load(Settings().config)))
    by_openvino = ClipDecoder(vae, CPU, "float32", engine=forced(tmp_path))
    by_openvino.warm_up(16, 16)
    assert by_openvino.describe() == "float32 by OpenVINO"
    scaled = latents(5, vae.channels, 16)  # the last chunk has one frame
    difference = np.abs(pictures(by_openvino, scaled) - pictures(ClipDecoder(vae, CPU, "float32"), scaled))
    assert difference.max() <= 1
    assert difference.mean() < 0.001


def test_another_size_is_decoded_by_torch(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    by_openvino, by_torch = lite(tmp_path, forced(tmp_path)), lite(tmp_path, None)
    for side in (8, 6):
        scaled = latents(3, 4, side)
        assert np.abs(pictures(by_openvino, scaled) - pictures(by_torch, scaled)).max() <= 1


@pytest.mark.parametrize(
    ("openvino", "by_torch", "plan"),
    [(1.0, 2.0, "float32 by OpenVINO"), (1.0, 1.01, "float32 c"), (2.0, 1.0, "float32 c")],
)
def test_the_faster_library_decodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, openvino: float, by_torch: float, plan: str
) -> None:
    pytest.importorskip("openvino")
    monkeypatch.setattr(decode, "best_times", lambda tasks: [openvino, by_torch])
    assert lite(tmp_path, CpuEngine(False, tmp_path, 1)).describe().startswith(plan)


def test_torch_decodes_where_openvino_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    decoder = lite(tmp_path, forced(tmp_path))
    assert decoder.describe().startswith("float32 c")
    assert "decoding by torch, OpenVINO cannot serve: " in caplog.text
    assert "cannot be imported" in caplog.text
    assert pictures(decoder, latents(3, 4, 8)).shape == (3, 32, 32, 3)


def test_torch_decodes_where_openvino_fails_at_the_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    openvino = pytest.importorskip("openvino")

    def fail(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no such operation\nand more")

    monkeypatch.setattr(openvino, "convert_model", fail)
    assert lite(tmp_path, forced(tmp_path)).describe().startswith("float32 c")
    assert "OpenVINO cannot serve: " in caplog.text
    assert "no such operation" in caplog.text
