"""Whisper as a model ships it for OpenVINO, with its corrections. It needs neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from audio_worker.graph_features import GraphFeatures, WhisperFacts
from audio_worker.mel import POSITIONS
from protocol.model.config import ModelConfig, read_json
from protocol.model.cpu_graph import CpuEngine
from protocol.model.topology import ShippedNetwork, TopologyError, Weights, read_tensors

#: The network's name.
WHISPER = "whisper"

#: The file in a folder of Whisper's weights whose tensors are named as in transformers.
WEIGHTS_FILE = "whisper_encoder.safetensors"

#: The table of positions, which that file leaves out.
POSITION_TABLE = "embed_positions.weight"

#: How the names of a correction's two matrices end (`adapter`).
DOWN, UP = ".down", ".up"


def whisper_tensors(config: ModelConfig) -> Weights:
    """The tensors of a model's Whisper, corrected, for windows of 1.5 s.

    Raises:
        TopologyError: they are not laid out as the bundled model's are, or corrections do not fit.
        SettingsError: a file is damaged. The text names it.
    """
    state = dict(read_tensors(_weights_file(config)))
    made: dict[str, NDArray[Any]] = {
        name: x
        for name, x in state.items()
        if not name.startswith("layer_norm.")  # no state needs that norm
    }
    if POSITION_TABLE in made:
        made[POSITION_TABLE] = made[POSITION_TABLE][:POSITIONS]
    elif "conv1.weight" in made:
        made[POSITION_TABLE] = sinusoids(POSITIONS, len(made["conv1.weight"]))
    if config.audio_adapter_path is not None:
        _correct(made, config.audio_adapter_path)
    return made


def _weights_file(config: ModelConfig) -> Path:
    path = config.audio_model_path
    file = path / WEIGHTS_FILE if path.is_dir() else path
    if not file.is_file():
        raise TopologyError(f"{path}: holds no {WEIGHTS_FILE}")
    return file


def _correct(made: dict[str, NDArray[Any]], path: Path) -> None:
    """Adds up · down to the weight (out, in) of each layer that a file of corrections names."""
    corrections = read_tensors(path)
    for key in corrections:
        layer = key.removesuffix(UP)
        if layer == key:
            continue
        up, down = (np.asarray(corrections.get(layer + end), np.float32) for end in (UP, DOWN))
        weight = made.get(f"{layer}.weight")
        if weight is None or up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0]:
            raise TopologyError(f"{path}: {layer} does not fit")
        if (len(up), down.shape[1]) != weight.shape:
            raise TopologyError(f"{path}: {layer} does not fit")
        made[f"{layer}.weight"] = weight.astype(np.float32) + up @ down


def sinusoids(positions: int, width: int) -> NDArray[np.float32]:
    """Whisper's table of positions (positions, width): sines, then cosines."""
    half = width // 2
    rates = np.exp(np.arange(half, dtype=np.float64) * (-np.log(10000.0) / (half - 1)))
    angles = np.arange(positions, dtype=np.float64)[:, None] * rates
    table: NDArray[np.float32] = np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)
    return table


def whisper_facts(config: ModelConfig) -> dict[str, Mapping[str, Any]]:
    """The numbers that a model's Whisper must belong to."""
    file = _weights_file(config).parent / "config.json"
    whisper = read_json(file) if file.is_file() else {}
    keys = ("d_model", "encoder_attention_heads", "encoder_layers", "num_mel_bins")
    return {"whisper": {key: whisper.get(key) for key in keys}}


def shipped_whisper(config: ModelConfig) -> ShippedNetwork | None:
    """Whisper's network as the model ships it, or None where it ships none that belongs to it.

    Raises:
        SettingsError: a file is damaged. The text names it.
    """
    if config.whisper_window != "short" or ShippedNetwork.topology_of(config.path, WHISPER) is None:
        return None
    try:
        facts = whisper_facts(config)
    except TopologyError:
        return None
    return ShippedNetwork.find(config.path, WHISPER, partial(whisper_tensors, config), facts)


def features_of(network: ShippedNetwork, margin: int, dtype: str, engine: CpuEngine) -> GraphFeatures:
    """The features by a network of `shipped_whisper`, from the kept file or compiled now.

    Args:
        network: Whisper's.
        margin: video frames of context on each side of a frame.
        dtype: of the arithmetic, float32 or bfloat16.
        engine: where networks are kept, and how many threads they use.

    Raises:
        Exception: whatever fails in OpenVINO.
    """
    n_mels = network.weights["conv1.weight"].shape[1]
    graph = network.load(f"{WHISPER}-{n_mels}", [(1, n_mels, 2 * POSITIONS)], dtype, engine)
    return GraphFeatures(graph, WhisperFacts(dtype, n_mels), margin)


def shipped_features(config: ModelConfig, margin: int, dtype: str, engine: CpuEngine) -> GraphFeatures | None:
    """Whisper as the model ships it, or None where it ships none that belongs to it.

    Arguments and errors as for `features_of`, and `config`'s and errors as for `shipped_whisper`.
    """
    network = shipped_whisper(config)
    return None if network is None else features_of(network, margin, dtype, engine)
