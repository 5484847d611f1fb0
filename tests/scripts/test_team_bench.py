"""The benchmark of teams, on a tiny model by processes on this machine's CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from scripts.bench.gpu import team

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.long]


def test_two_processes_against_one(tmp_path: Path) -> None:
    written = tmp_path / "team.json"
    argv = ["--quick", "--cpu", "--members", "1,2", "--clips", "2", "--paced", "1", "--json", str(written)]
    assert team.main(argv) == 0
    found = json.loads(written.read_text())
    assert len(found["2"]["64"]["times"]) == 2
    assert found["2"]["64"]["of_one"] < 1e-5
    assert found["1"]["64"]["of_float32"] < 1e-5
