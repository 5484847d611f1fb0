"""The denoiser in eight bits: its distance to float32, its table, and the choice of it."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpu_worker.engine import shipped_networks as networks_module
from gpu_worker.engine.eight_bits import (
    TABLE_FILE,
    ranges_of_clips,
    rounding_layers,
    rounding_of,
    with_inputs,
    with_rounding,
)
from gpu_worker.engine.shipped_networks import (
    DENOISER,
    ShippedNetworks,
    denoiser_tensors,
    network_facts,
    shipped_networks,
)
from protocol.model.config import ModelConfig
from protocol.model.cpu_graph import CpuEngine, graph_properties, import_openvino
from protocol.model.topology import FOLDER, ShippedNetwork
from protocol.process.settings import Settings

pytest.importorskip("openvino", reason="OpenVINO is not installed here")

FRAMES, HEIGHT, WIDTH, TOKENS = 2, 4, 6, 50


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """This CPU counts as one that multiplies eight bits fast."""
    monkeypatch.setattr(networks_module, "multiplies_fast", lambda: True)


def load(
    folder: Path, *, dtype: str = "float32", forced: bool = False, eight_bit: bool = True
) -> ShippedNetworks:
    config = ModelConfig.load(Settings().config)
    made = shipped_networks(config, 64, 96, dtype, CpuEngine(forced, folder, 1, eight_bit))
    assert made is not None
    return made


def prediction(networks: ShippedNetworks, *, any_length: bool = False) -> np.ndarray:
    random = np.random.default_rng(0)
    reference = networks.reference(random.integers(0, 256, (64, 96, 3), dtype=np.uint8))
    pose = networks.pose(random.random((FRAMES, 3, 64, 96), dtype=np.float32))
    latents = random.standard_normal((FRAMES, 32, HEIGHT, WIDTH), dtype=np.float32)
    tokens = random.standard_normal((FRAMES, TOKENS, 384), dtype=np.float32)
    graph = networks.denoiser(FRAMES, HEIGHT, WIDTH, TOKENS, any_length=any_length)
    made: np.ndarray = graph(
        latents, networks.times([999])[0], tokens, pose, np.arange(FRAMES), reference
    ).copy()
    return made


def told(seconds: Sequence[float]) -> Callable[[Sequence[Any]], list[float]]:
    """A stand-in of `best_times`: the plain network's seconds and the rounding one's."""
    return lambda tasks: [seconds[number] for number, _ in enumerate(tasks)]


def distance(made: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(made - wanted) / np.linalg.norm(wanted))


def test_the_bundled_denoiser_keeps_its_prediction(tmp_path: Path) -> None:
    """The table in the repository belongs to the weights. It is of speech, and these inputs are noise."""
    exact = load(tmp_path, eight_bit=False)
    rounding = load(tmp_path, forced=True)
    wanted = prediction(exact)
    assert not exact.rounds
    for any_length in (False, True):
        made = prediction(rounding, any_length=any_length)
        assert rounding.rounds
        assert 1e-4 < distance(made, wanted) < 0.1


@pytest.mark.parametrize(("rounded", "pays"), [(0.80, True), (0.90, False)])
def test_the_choice_is_timed_once(
    rounded: float,
    pays: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(networks_module, "best_times", told([1.0, rounded]))
    with caplog.at_level(logging.INFO):
        for said in (f"with int8 {1e3 * rounded:.0f} ms", "as an earlier start found"):
            networks = load(tmp_path)
            networks.denoiser(FRAMES, HEIGHT, WIDTH, TOKENS, any_length=False)
            assert networks.rounds is pays
            monkeypatch.setattr(networks_module, "best_times", None)
            assert f"denoising by {'int8 and ' if pays else ''}float32" in caplog.text
            assert said in caplog.text


def test_rounding_that_fails_leaves_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(_tasks: Sequence[Any]) -> list[float]:
        raise RuntimeError("an instruction is missing")

    monkeypatch.setattr(networks_module, "best_times", fails)
    networks = load(tmp_path)
    with caplog.at_level(logging.INFO):
        assert np.isfinite(prediction(networks)).all()
    assert "denoising by float32: int8 cannot serve, an instruction is missing" in caplog.text
    assert not networks.rounds


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_it_is_timed_where_the_processor_multiplies_fast(
    dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load(tmp_path, dtype=dtype).rounds is None
    assert load(tmp_path, dtype=dtype, eight_bit=False).rounds is False
    monkeypatch.setattr(networks_module, "multiplies_fast", lambda: False)
    assert load(tmp_path, dtype=dtype).rounds is False


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table | {"weights": "0" * 24}, "belongs to another network"),
        (lambda table: table | {"ranges": 3}, "cannot be used"),
        (lambda table: [table], "cannot be used"),
        (None, ""),
    ],
)
def test_a_table_that_does_not_fit(
    change: Callable[[Any], Any] | None, said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = ModelConfig.load(Settings().config)
    facts = network_facts(config)[DENOISER]
    network = ShippedNetwork.find(config.path, DENOISER, lambda: denoiser_tensors(config), facts)
    assert network is not None
    assert rounding_of(config.path, network) is not None
    (tmp_path / FOLDER).mkdir()
    if change is not None:
        own = tmp_path / FOLDER / TABLE_FILE
        shutil.copy(config.path.parent / FOLDER / TABLE_FILE, own)
        own.write_text(json.dumps(change(json.loads(own.read_text(encoding="utf-8")))), encoding="utf-8")
    assert rounding_of(tmp_path / "infer.yaml", network) is None
    assert said in caplog.text
    assert bool(said) is bool(caplog.text)


def small_model(*, transposed: bool) -> tuple[Any, np.ndarray]:
    """One linear layer of 128 by 128 that rounds, and one to 64 that does not, as its input is wider."""
    ops = import_openvino().opset8
    random = np.random.default_rng(1)
    weights = random.standard_normal((128, 128)).astype(np.float32)
    x = ops.parameter([1, 3, 128], np.float32)
    layer = ops.matmul(x, ops.constant(weights.T.copy() if transposed else weights), False, transposed)
    narrowing = ops.matmul(layer, ops.constant(np.ones((128, 64), np.float32)), False, False)
    return import_openvino().Model([layer, narrowing], [x]), weights


@pytest.mark.parametrize("transposed", [False, True])
def test_a_layer_rounds_inputs_and_weights(transposed: bool) -> None:
    model, weights = small_model(transposed=transposed)
    layers = list(rounding_layers(model))
    _, names = with_inputs(model)
    assert names == [layers[0].get_friendly_name()]
    rounding = with_rounding(model, {names[0]: 2.0})
    compiled = import_openvino().Core().compile_model(rounding, "CPU", graph_properties("float32", 1))
    inputs = np.random.default_rng(2).uniform(-3, 3, (1, 3, 128)).astype(np.float32)
    step, steps = 2.0 / 127, np.abs(weights).max(0, keepdims=True) / 127
    wanted = (np.rint(inputs / step).clip(-128, 127) * step) @ (np.rint(weights / steps) * steps)
    made = compiled([inputs])[0]
    # Sums of two products overflow without VNNI, so only the size of the error is judged there.
    assert distance(made, wanted) < 0.05
    assert distance(made, inputs @ weights) > 0.05  # a third of the inputs is cut off


def test_ranges_leave_out_the_largest_share() -> None:
    values = np.arange(1000, dtype=np.float32)
    clips: list[list[np.ndarray]] = [[-values], [values[::-1] / 2]]
    assert ranges_of_clips(["layer"], iter(clips), 0.0) == {"layer": 999.0}
    assert ranges_of_clips(["layer"], iter(clips), 0.01) == {"layer": 989.0}
