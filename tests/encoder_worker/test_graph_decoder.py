"""The kept decoder: the second start needs no torch, makes the same pictures, and notices changes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from encoder_worker.graph_decoder import GraphDecoder
from encoder_worker.latents import DecodeError
from encoder_worker.worker import EncoderWorker
from protocol.process.settings import ROOT, load_settings
from tests.audio_worker.placeholders import write_config
from tests.encoder_worker.folders import make_lite

FLAGS = ("--cpu-engine", "openvino", "--encoder-devices", "cpu", "--threads", "1", "--dtype", "float32")
START = """
import sys
from types import SimpleNamespace
from encoder_worker.worker import EncoderWorker
from protocol.process.settings import load_settings
stage = SimpleNamespace(warm=True, jobs=SimpleNamespace(ack=None))
worker = EncoderWorker(load_settings(sys.argv[1:], env={}), stage)
worker.warm_up()
print("torch" in sys.modules)
"""


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Flags for a small model whose folder of kept networks is the test's own."""
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    make_lite(tmp_path / "vae")
    return ["--config", str(write_config(tmp_path, vae="vae")), "--width", "64", "--height", "64", *FLAGS]


def warm(flags: list[str]) -> Any:
    """The decoder of a worker that has warmed up."""
    stage: Any = SimpleNamespace(warm=True, jobs=SimpleNamespace(ack=None))
    worker = EncoderWorker(load_settings(flags, env={}), stage)
    worker.warm_up()
    return worker._decoder


def pictures(decoder: Any) -> np.ndarray:
    scaled = np.random.default_rng(1).standard_normal((5, 4, 16, 16)).astype(np.float16)
    return np.concatenate(list(decoder.decode(scaled)))


def test_the_second_start_decodes_by_the_kept_network(flags: list[str]) -> None:
    pytest.importorskip("openvino")
    first, second = warm(flags), warm(flags)
    assert not isinstance(first, GraphDecoder)
    assert isinstance(second, GraphDecoder)
    assert second.describe() == first.describe() == "float32 by OpenVINO"
    assert np.array_equal(pictures(first), pictures(second))
    by_torch = warm([*flags, "--cpu-engine", "torch"])
    assert np.abs(pictures(second).astype(int) - pictures(by_torch)).max() <= 1
    with pytest.raises(DecodeError, match="this decoder takes"):
        list(second.decode(np.zeros((1, 4, 6, 6), np.float16)))


def test_other_weights_and_other_settings_find_no_record(flags: list[str], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    warm(flags)
    assert not isinstance(warm([*flags, "--threads", "2"]), GraphDecoder)
    make_lite(tmp_path / "vae", seed=2)
    assert not isinstance(warm(flags), GraphDecoder)


@pytest.mark.parametrize(
    "damage", ["{", "[]", '{"serves": "openvino"}', '{"serves": "openvino", "facts": 1}']
)
def test_a_damaged_record_is_made_anew(flags: list[str], tmp_path: Path, damage: str) -> None:
    pytest.importorskip("openvino")
    warm(flags)
    (record,) = tmp_path.rglob("decoder-*.json")
    record.write_text(damage)
    assert not isinstance(warm(flags), GraphDecoder)
    assert json.loads(record.read_text())["serves"] == "openvino"


def test_a_network_that_is_gone_is_made_anew(flags: list[str], tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    warm(flags)
    (network,) = tmp_path.rglob("decoder-*.blob")
    network.unlink()
    assert not isinstance(warm(flags), GraphDecoder)
    assert isinstance(warm(flags), GraphDecoder)


def test_no_torch_is_imported_to_pass_pictures_through() -> None:
    command = [sys.executable, "-c", START, "--passthrough"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    assert made.stdout.split() == ["False"]
