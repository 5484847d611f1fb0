"""The parts of the measurement of serving on a GPU, and one of them run small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.bench.gpu import live as live_bench
from scripts.bench.gpu import serving as gpu_serving

pytestmark = pytest.mark.process


def test_parts_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_serving.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(gpu_serving.parts(Path("o"), Path("m"), Path("c"))) > 8
    assert any("2 GPU" in line for line in lines)


def test_a_part_is_run_and_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert gpu_serving.main(["--quick", "--only", "decode,tests", "--out", str(tmp_path)]) == 0
    shown = capfd.readouterr().out
    assert "decode            status 0" in shown
    assert "tests             left out: nothing to see here" in shown
    assert "doublings folded" in (tmp_path / "decode.txt").read_text()


def test_what_does_not_fit_the_budget_is_left_out(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert gpu_serving.main(["--quick", "--only", "512", "--budget", "1", "--out", str(tmp_path)]) == 0
    # the import of torch takes seconds on a busy machine
    assert re.search(r"left out: -?\d+ s left, it takes 150", capfd.readouterr().out)


def test_live_parts_are_flags_that_the_live_benchmark_takes(tmp_path: Path) -> None:
    """Flags that it does not know itself go to the run, whose settings must take them."""
    from protocol.process.settings import load_settings

    for part in gpu_serving.parts(tmp_path, tmp_path / "model", tmp_path / "caches"):
        if "scripts.bench.gpu.live" in part.words:
            known, rest = live_bench._parser().parse_known_args(part.words[2:])
            assert known.json == tmp_path / f"{part.name}.json"
            load_settings(rest, env={})
