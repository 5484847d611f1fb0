"""The loss of the small decoder, with random weights in the real architectures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scripts.bench.gpu import decoder_loss
from scripts.bench.gpu.decoder_loss import contrast, losses, psnr

PICTURE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)


def test_figures_of_pictures_that_are_known() -> None:
    flat = np.full_like(PICTURE, 100)
    assert psnr(PICTURE, PICTURE) == 100
    assert psnr(flat, flat + 10) == pytest.approx(28.13, abs=0.01)
    halved = (PICTURE // 2).astype(np.uint8)
    small_to_own, own_to_truth, small_to_truth, edges = losses(PICTURE, PICTURE, halved)
    assert own_to_truth == 100 and small_to_own == small_to_truth < 20
    assert edges == pytest.approx(contrast(halved) / contrast(PICTURE)) and 0.45 < edges < 0.55


@pytest.mark.long
def test_every_bundled_figure_has_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.helpers.official_layout import write_official_layout

    config = write_official_layout(tmp_path, width=64, height=64, steps=2)
    assert decoder_loss.main(["--config", str(config), "--size", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:]] == [
        "amara", "greta", "kenji", "leo", "maya", "omar", "median",
    ]  # fmt: skip
    assert decoder_loss.main(["--config", str(config.with_name("none.yaml"))]) == 1
