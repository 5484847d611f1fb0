"""Scales of the fast tier's float8 between starts: found again, and only for the same model and code."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from gpu_worker.engine import kept_tops
from gpu_worker.engine.kept_tops import KeptTops
from protocol.model.config import ModelConfig
from protocol.process.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("HOME", str(tmp_path))
    return load_settings([], env={})


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModelConfig:
    """A model of one file."""
    weights = tmp_path / "weights"
    weights.write_bytes(b"1234")
    monkeypatch.setattr(kept_tops, "model_files", lambda config: [weights])
    made = SimpleNamespace(path=tmp_path / "model.yaml", picture_size=lambda settings: (64, 64))
    return cast(ModelConfig, made)


def test_the_next_start_finds_them(settings: Settings, config: ModelConfig) -> None:
    tops = KeptTops(settings, config)
    assert tops.load(3) is None
    tops.store([0.5, 2.0, 0.0])
    assert KeptTops(settings, config).load(3) == [0.5, 2.0, 0.0]
    assert KeptTops(settings, config).load(4) is None


def test_another_model_or_other_steps_have_their_own(
    settings: Settings, config: ModelConfig, tmp_path: Path
) -> None:
    KeptTops(settings, config).store([1.0])
    assert KeptTops(replace(settings, steps=4), config).load(1) is None
    os.utime(tmp_path / "weights", ns=(1, 1))
    assert KeptTops(settings, config).load(1) is None


@pytest.mark.parametrize("broken", ['[1.0, "a"]', "[1.0, NaN]", "[1.0, -1.0]", "{}", "[true, 1.0]"])
def test_a_broken_record_is_none(
    settings: Settings, config: ModelConfig, tmp_path: Path, broken: str
) -> None:
    tops = KeptTops(settings, config)
    tops.store([1.0, 2.0])
    (file,) = (tmp_path / ".cache/echomimic-live/quality").glob("tops-*.json")
    file.write_text(json.dumps({"tops": 0}).replace("0", broken))
    assert tops.load(2) is None


def test_values_that_are_not_finite_are_not_kept(settings: Settings, config: ModelConfig) -> None:
    tops = KeptTops(settings, config)
    tops.store([float("inf")])
    assert tops.load(1) is None
