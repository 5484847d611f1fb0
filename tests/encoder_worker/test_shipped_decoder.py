"""The decoder that the bundled model ships for OpenVINO: torch's pictures, without torch."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from encoder_worker.graph_decoder import RANGES_FILE
from encoder_worker.shipped_decoder import ShippedDecoders
from encoder_worker.vae.decoders import load_decoder
from encoder_worker.vae.int8 import read_ranges, rounding_layers, weights_digest, with_eight_bits
from encoder_worker.vae.openvino import graph_decoder
from encoder_worker.vae.ranges import GREATEST, ROUNDED, STEPS, eight_bit_tensors
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine
from protocol.model.vae_folder import VaeFolder
from protocol.process.settings import Settings
from tests.helpers.blocked_torch import run_without_torch

pytest.importorskip("openvino", reason="OpenVINO is not installed here")

SIDE = 8
START = """
import logging
import sys
from types import SimpleNamespace
from encoder_worker.worker import EncoderWorker
from protocol.process.settings import SettingsError, load_settings
logging.basicConfig(level=logging.INFO)
stage = SimpleNamespace(warm=True, jobs=SimpleNamespace(ack=None))
worker = EncoderWorker(load_settings(sys.argv[1:], env={}), stage)
try:
    worker.warm_up()
    print(worker.info()["plan"])
except SettingsError as error:
    print("refused:", error)
"""


@cache
def bundled() -> ModelConfig:
    return ModelConfig.load(Settings().config)


def shipped(*, fine: bool = False) -> ShippedDecoders:
    made = ShippedDecoders.find(bundled(), VaeFolder.of(bundled()), fine=fine)
    assert made is not None
    return made


def latents(frames: int = 3) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((frames, 32, SIDE, SIDE)).astype(np.float32)


@pytest.mark.parametrize("fine", [False, pytest.param(True, marks=pytest.mark.long)])
def test_the_pictures_are_torchs(tmp_path: Path, fine: bool) -> None:
    engine = CpuEngine(True, tmp_path, 1)
    made = shipped(fine=fine).load(3, SIDE, SIDE, "float32", engine, eight_bit=False)
    decoder = load_decoder(VaeFolder.of(bundled()), fine=fine)
    with torch.inference_mode():
        exact = decoder(torch.from_numpy(latents())).numpy()
    levels = np.clip(exact * 127.5 + 127.5, 0, 255).transpose(0, 2, 3, 1)
    pictures = made.unscaled(latents())
    # Rounded to the nearest level, but for values just between two.
    assert np.abs(pictures - levels).max() <= 0.5 + 1e-3
    facts = made.facts
    assert (facts.kind, facts.scaling, facts.shift) == (decoder.kind, decoder.scaling, decoder.shift)


@pytest.mark.long
def test_eight_bits_are_those_of_a_traced_decoder(tmp_path: Path) -> None:
    own, engine = shipped(), CpuEngine(True, tmp_path, 1)
    assert own.has_eight_bit, "run python -m demo.factory.calibrate"
    made = own.load(3, SIDE, SIDE, "float32", engine, eight_bit=True)
    folder = VaeFolder.of(bundled())
    decoder = load_decoder(folder)
    ranges = read_ranges(folder.path, decoder)
    assert ranges is not None
    traced = graph_decoder(decoder, 3, SIDE, SIDE, torch.float32, engine, ranges)
    assert np.array_equal(made.unscaled(latents()), traced.unscaled(latents()))


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    """Pixels of eight bits would not tell."""
    made = shipped()
    network = made._networks[False]
    assert network is not None
    name, first = next(iter(network.weights.items()))
    broken = {**network.weights, name: np.full_like(first, np.nan)}
    made._networks[False] = replace(network, weights=broken)
    with pytest.raises(ValueError, match=f"{name} is not finite"):
        made.load(1, SIDE, SIDE, "float32", CpuEngine(True, tmp_path, 1), eight_bit=False)


def test_weights_round_as_torch_rounds_them() -> None:
    decoder = load_decoder(VaeFolder.of(bundled()))
    weights = {name: x.numpy() for name, x in decoder.state_dict().items()}
    ranges = {name: 2.0 for name, _ in rounding_layers(decoder)}
    rounding = with_eight_bits(decoder, ranges)
    made = eight_bit_tensors(weights, ranges)
    for name, conv in rounding_layers(decoder):
        steps = rounding.state_dict()[f"{name}.weight_steps"].numpy()
        assert np.array_equal(made[name + STEPS], steps)
        exact = conv.weight.numpy() / steps[:, None, None, None]
        assert np.abs(made[name + ROUNDED] - exact).max() <= 0.5 + 1e-4
        assert made[name + GREATEST] == pytest.approx(2.0)
        assert f"{name}.weight" not in made


def test_ranges_of_other_weights_leave_eight_bits_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    folder = VaeFolder.of(bundled())
    assert weights_digest(load_decoder(folder)) in (folder.path / RANGES_FILE).read_text()
    monkeypatch.setattr("encoder_worker.shipped_decoder.tensors_digest", lambda tensors: "0" * 24)
    assert not shipped().has_eight_bit
    assert "belongs to other weights" in caplog.text
    made = shipped().quickest(2, SIDE, SIDE, "float32", CpuEngine(True, tmp_path, 1, eight_bit=True))
    assert made.describe() == "float32 by OpenVINO"


@pytest.mark.parametrize(
    ("seconds", "plan"),
    [([1.0, 0.6], "int8 and float32 by OpenVINO"), ([1.0, 0.8], "float32 by OpenVINO")],
)
def test_the_faster_one_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: list[float], plan: str
) -> None:
    monkeypatch.setattr("encoder_worker.shipped_decoder.best_times", lambda tasks: seconds)
    engine = CpuEngine(False, tmp_path, 1, eight_bit=True)
    assert shipped().quickest(2, SIDE, SIDE, "float32", engine).describe() == plan


def test_a_worker_starts_without_torch(tmp_path: Path) -> None:
    first = run_without_torch(START, home=tmp_path)
    assert "by OpenVINO" in first.stdout, first.stderr
    assert "decoding by OpenVINO: torch is not installed" in first.stderr
    second = run_without_torch(START, home=tmp_path)
    assert second.stdout == first.stdout
    assert "compiled" not in second.stderr


def test_a_worker_that_needs_torch_says_so(tmp_path: Path) -> None:
    wanted = run_without_torch(START, "--cpu-engine", "torch", home=tmp_path)
    assert wanted.stdout.startswith("refused: --cpu-engine torch needs PyTorch, which is not installed;")
    damaged = run_without_torch(START, home=tmp_path, missing=["openvino"])
    assert "OpenVINO cannot serve: OpenVINO cannot be imported" in damaged.stderr
    assert damaged.stdout.startswith("refused: decoding by this model here needs PyTorch")
