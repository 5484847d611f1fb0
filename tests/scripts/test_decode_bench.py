"""The decode ladder, small."""

from __future__ import annotations

import pytest
import torch

from scripts.bench.gpu import decode as decode_bench

pytestmark = pytest.mark.slow


def test_a_small_decoder_climbs_too(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--quick", "--decoder", "tiny", "--chunks", "4", "--only", "served"]
    assert decode_bench.main(words) == 0
    said = capsys.readouterr().out
    assert "served + JPEG, 4 at once" in said and "failed" not in said


def test_the_ladder_climbs_small(capsys: pytest.CaptureFixture[str]) -> None:
    assert decode_bench.main(["--quick", "--chunks", "4"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert "failed" not in "\n".join(rows)
    for name in ("one by one", "batched", "channels_last", "doublings folded", "JPEG"):
        (row,) = [row for row in rows if name in row][:1]
        assert " ms" in row
    if not torch.cuda.is_available():  # half precision's error, and no more
        psnr = [float(row.split()[-3]) for row in rows if " ms" in row and "JPEG" not in row]
        assert min(psnr) > 45
