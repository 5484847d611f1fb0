"""The benchmark of stages that share a GPU: sums, and the start and end of the multi-process service."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from scripts.bench.gpu import mps, sharing
from scripts.bench.gpu.mps import multi_process_service


def row(processes: list[str], seconds: float) -> dict[str, object]:
    return {"processes": processes, "stage": processes[0], "median": seconds}


def test_the_demand_of_four_sessions() -> None:
    rows = [row(["denoiser"], 0.1), row(["denoiser", "whisper"], 0.2)]
    rows.append(row(["denoiser", "decoder", "whisper"], 0.11))
    told = sharing.demand(rows, 0.5)
    assert told == "  the others cost 10.0% of a clip; 4 sessions take 0.440 of 0.500 s (88%)"


def test_a_driver_without_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mps, "OTHER_PLACES", ())
    with multi_process_service({"PATH": str(tmp_path)}) as clients:
        assert clients is None


@pytest.mark.parametrize("works", [True, False])
def test_the_service_begins_and_ends_with_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, works: bool
) -> None:
    """By a program in its place, and a client that works or does not."""
    told = tmp_path / "told"
    program = tmp_path / mps.CONTROL
    program.write_text(
        f'#!/bin/sh\necho "$@ $(cat)" >> {told}\necho ready > "$CUDA_MPS_LOG_DIRECTORY/c.log"\n'
    )
    program.chmod(0o700)
    monkeypatch.setattr(mps, "FIRST_CLIENT", f"raise SystemExit({0 if works else 1})")
    with (
        caplog.at_level(logging.INFO),
        multi_process_service({"PATH": f"{tmp_path}:/usr/bin:/bin"}) as clients,
    ):
        assert (clients is not None) == works
        if clients is not None:
            assert all(Path(folder).is_dir() for folder in clients.values())
    assert told.read_text().split() == ["-d", "quit"]
    assert works or "a first client could not open the GPU; ready" in caplog.text
