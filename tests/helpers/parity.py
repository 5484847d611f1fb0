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


def shared_dir() -> Path:
    """The folder of golden numbers and real data: the setting `shared_dir`, by default ../shared."""
    return Path(load_settings([]).shared_dir)


def parity_file(name: str) -> Path:
    """Path of a golden file; skips the test, saying so, where it is absent."""
    path = shared_dir() / "parity" / name
    if not path.exists():
        pytest.skip(f"golden numbers are absent: {path}")
    return path


def golden(name: str) -> dict[str, np.ndarray]:
    with np.load(parity_file(name)) as data:
        return {key: data[key] for key in data.files}


def tiny_configs() -> dict[str, Any]:
    return json.loads(parity_file("tiny_configs.json").read_text())


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
