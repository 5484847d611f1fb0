"""The arithmetic that an engine takes, and its compiled code: when it serves and where it is kept."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gpu_worker.engine import compiled as compiling
from gpu_worker.engine import load as loading
from gpu_worker.engine.device import keep_compiled_code
from gpu_worker.engine.serve import DenoiserEngine
from protocol.process.settings import load_settings
from tests.gpu_worker.engine_world import QUICK, clip, make, settings_for

pytestmark = pytest.mark.slow


def test_compiling_that_fails_leaves_the_eager_model(
    world: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    def broken(module: object, **_: object) -> Callable[..., None]:
        def call(*_: object) -> None:
            raise RuntimeError("no C++ compiler was found\nsecond line")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(compiling, "keep_compiled_code", lambda settings: tmp_path)
    other = DenoiserEngine(settings_for(world, "--compile-unet", *QUICK))
    other.load()
    other.make_ready_for(24)
    assert other.info()["compiled"] is False
    assert "--compile-unet has no effect, compiling failed: no C++ compiler was found" in caplog.text
    assert np.isfinite(make(other, clip("eager", 0))).all()


def test_compiled_code_serves_the_shapes_it_was_made_for(
    world: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[int] = []

    def counted(module: Any, **_: object) -> Callable[..., Any]:
        def call(latents: torch.Tensor, *rest: Any) -> Any:
            seen.append(latents.shape[2])
            return module(latents, *rest)

        return call

    monkeypatch.setattr(torch, "compile", counted)
    monkeypatch.setattr(compiling, "keep_compiled_code", lambda settings: tmp_path)
    other = DenoiserEngine(settings_for(world, "--compile-unet", *QUICK))
    other.load()
    assert seen == []
    other.make_ready_for(24)
    assert other.info()["compiled"] is True
    assert set(seen) == {4}
    seen.clear()
    other.make_ready_for(24)
    assert seen == []
    make(other, clip("compiled", 0, frames=4))
    make(other, clip("compiled", 0, frames=5))
    assert seen == [4, 4]


def test_the_faster_arithmetic_is_taken(
    world: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr("protocol.model.hardware.arithmetic.cpu_has_bfloat16", lambda: True)
    times = {torch.float32: 2.0, torch.bfloat16: 1.0}
    monkeypatch.setattr(
        loading, "best_times", lambda tasks: [times[x.__self__.denoiser.models.dtype] for x in tasks]
    )
    monkeypatch.setattr(DenoiserEngine, "_warm", lambda self: None)
    for fastest in ("bfloat16", "float32"):
        monkeypatch.setenv("HOME", str(tmp_path / fastest))  # where no earlier choice is kept
        other = DenoiserEngine(settings_for(world, "--dtype", "auto"))
        other.load()
        assert other.info()["dtype"] == fastest
        assert f"arithmetic: {fastest} (a clip takes: float32 2.000 s, bfloat16" in caplog.text
        times[torch.bfloat16] = 3.0


def test_compiled_code_is_kept_where_it_can_be(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = load_settings(["--run-dir", str(tmp_path / "run")], env={})
    variable = "TORCHINDUCTOR_CACHE_DIR"
    monkeypatch.setenv("TRITON_CACHE_DIR", "")  # so that what is set here ends with the test
    monkeypatch.delenv("TRITON_CACHE_DIR")
    monkeypatch.setenv(variable, "/somewhere/else")
    assert keep_compiled_code(settings) == Path("/somewhere/else")
    monkeypatch.delenv(variable)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    kept = keep_compiled_code(settings)
    assert kept.is_dir()
    assert kept.is_relative_to(tmp_path / ".cache")
    assert os.environ["TRITON_CACHE_DIR"] == str(kept / "triton")
    assert keep_compiled_code(settings) == kept
    monkeypatch.delenv(variable)
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "file")
    assert keep_compiled_code(settings) == tmp_path / "run" / "compiled"
