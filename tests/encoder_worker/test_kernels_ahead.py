"""The fast decoder's kernels as the helper lists them: all that a worker launches, made without a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoder_worker.fast.ahead import kinds_of, parts_of
from protocol.model.kernels.lines import read_part
from protocol.process.settings import load_settings
from tests.helpers.compile_kernels import run_unlaunched
from tests.helpers.official_layout import write_official_layout

pytest.importorskip("triton", reason="the kernels need Triton, which is not installed here")


@pytest.mark.slow
@pytest.mark.parametrize(("capability", "least"), [("86", 8), pytest.param("90", 20, marks=pytest.mark.long)])
def test_a_worker_finds_every_kernel(tmp_path: Path, capability: str, least: int) -> None:
    config = write_official_layout(tmp_path, width=64, height=64)
    words = ["encoder_worker.fast.ahead", capability]
    flags = ["--config", str(config), "--quality", "auto"]
    lines = run_unlaunched(tmp_path / "cache", *words, "ahead", *flags).splitlines()
    parts = [part for line in lines if (part := read_part(line)) is not None]
    assert [part.name for part in parts] == ["exact", "eight_bit"]
    kernels = sum(part.kernels for part in parts)
    assert kernels >= least
    assert run_unlaunched(tmp_path / "cache", *words, "late", *flags) == f"kept {kernels}, compiled 0\n"


def test_kinds_of_decoders() -> None:
    def kinds(*flags: str) -> list[str]:
        return kinds_of(load_settings(list(flags), {}))

    assert kinds("--quality", "auto") == ["exact", "eight_bit"]
    assert kinds("--tier", "fast") == ["eight_bit"]
    assert kinds("--tier", "exact") == ["exact"]
    assert kinds("--decoder", "tiny") == []


def test_other_cards_and_arithmetic_have_no_kernels(tmp_path: Path) -> None:
    config = str(write_official_layout(tmp_path, width=64, height=64))
    assert list(parts_of(load_settings(["--config", config], {}), 75)) == []
    assert list(parts_of(load_settings(["--config", config, "--dtype", "float32"], {}), 90)) == []
