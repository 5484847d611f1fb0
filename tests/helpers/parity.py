"""Golden numbers of the official code and the weights they were made with (see README.md beside them)."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from protocol.process.settings import load_settings

#: A small set of the official code's numbers, so that a clone alone can check that they match.
GOLDEN = Path(__file__).resolve().parents[1] / "golden"


def shared_dir() -> Path:
    """The folder of golden numbers and real data: the setting `shared_dir`, by default ../shared."""
    return Path(load_settings([]).shared_dir)


def golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of a golden file in the repository."""
    with np.load(GOLDEN / name) as data:
        return {key: data[key] for key in data.files}


def whole_golden(name: str) -> dict[str, np.ndarray]:
    """The arrays of a golden file with those that are too large for the repository.

    Skips the test, saying so, where the folder beside the repository is absent.
    """
    path = shared_dir() / "parity" / name
    if not path.exists():
        pytest.skip(f"the large golden numbers are absent: {path}")
    with np.load(path) as data:
        return {key: data[key] for key in data.files}


def golden_json(name: str) -> dict[str, Any]:
    """A golden file of names and shapes."""
    loaded: dict[str, Any] = json.loads((GOLDEN / name).read_text())
    return loaded


def tiny_configs() -> dict[str, Any]:
    """The constructor arguments of the small modules that the golden numbers were made with."""
    return golden_json("tiny_configs.json")


def drawn(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The value of one parameter, drawn from its full name."""
    x = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if len(shape) == 1:
        x = 1 + 0.1 * x if name.endswith("weight") else 0.05 * x
    else:
        x = x / np.sqrt(np.prod(shape[1:])).astype(np.float32)
    return torch.from_numpy(np.asarray(x, np.float32))


def draw_weights(module: nn.Module, prefix: str) -> None:
    """Fill `module` with the weights of the golden runs; position encodings keep their computed value."""
    state = module.state_dict()
    for key, value in state.items():
        if not key.endswith("pos_encoder.pe"):
            state[key] = drawn(f"{prefix}.{key}", tuple(value.shape))
    module.load_state_dict(state)


def relative_error(value: torch.Tensor, wanted: np.ndarray) -> float:
    """‖value − wanted‖ / ‖wanted‖ in float64."""
    reference = torch.from_numpy(np.asarray(wanted)).double()
    return float((value.double() - reference).norm() / reference.norm())
