"""The ladder's command, small on the CPU."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gpu_worker.denoiser.model import DenoisingUNet3D, ReferenceCache, UNetConfig
from scripts.bench.gpu.ladder import __main__ as ladder
from scripts.bench.gpu.ladder.__main__ import main
from scripts.bench.gpu.ladder.model import FULL, MOTION, ClipInputs
from scripts.bench.gpu.ladder.profile import MATRIX_RATE, class_of, step_floors
from tests.helpers.parity import golden_json

pytestmark = pytest.mark.slow


def test_a_short_ladder(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    rows = "official,reference,fused,try-fp8,tier-fast"
    words = ["--quick", "--cpu", "--repeat", "1", "--dtype", "float32", "--rows", rows]
    assert main([*words, "--profile", "fused", "--json", str(figures)]) == 0
    said = capsys.readouterr().out
    assert "| fast path: fused weights, plain torch stages |" in said
    made = json.loads(figures.read_text())["rows"]
    assert [key.split("/")[1] for key in made] == rows.split(",")
    errors = {key.split("/")[1]: row["error"] for key, row in made.items()}
    assert errors["official"] < 1e-5
    assert errors["fused"] < 1e-5
    assert 1e-4 < errors["try-fp8"] < 0.5
    assert errors["tier-fast"] < 0.8
    assert "| linear |" in said  # the profile's table, with floors


class Clock:
    """A clock in the place of `time`, that sleep alone moves."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def perf_counter(self) -> float:
        return sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def test_paced_clips(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A column more, filled for the rows that were named; clips begin a period apart."""
    clock = Clock()
    monkeypatch.setattr(ladder, "time", clock)
    monkeypatch.setattr(ladder, "PERIOD", 0.25)
    monkeypatch.setattr(ladder, "PACED", 2)
    words = ["--quick", "--cpu", "--repeat", "1", "--dtype", "float32", "--rows", "official,fused"]
    assert main([*words, "--paced", "fused"]) == 0
    official, fused = capsys.readouterr().out.splitlines()[-2:]
    assert official.endswith("|  |")
    assert fused.endswith("| 0.0000 (0.0000–0.0000) |")
    assert clock.slept == [0.25, 0.25, 0.25]  # one clip more, before those that count


def test_a_late_clip_moves_those_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clip that takes longer than a period is followed at once, and the next comes a period after that."""
    clock = Clock()
    monkeypatch.setattr(ladder, "time", clock)
    lengths = iter([0.125, 0.75, 0.125, 0.125])

    def sample() -> Tensor:
        clock.sleep(next(lengths))
        return torch.empty(0)

    times = ladder._paced(sample, False, 3)
    assert times == [0.75, 0.125, 0.125]
    assert clock.slept == [0.5, 0.125, 0.375, 0.75, 0.0, 0.125, 0.375, 0.125]


def test_an_unknown_row() -> None:
    with pytest.raises(SystemExit, match="no row fastest; there are official, "):
        main(["--quick", "--cpu", "--rows", "fastest"])


def test_the_model_is_the_official_one() -> None:
    """Every weight of the ladder's network has the name and the shape that it has in the official code."""
    with torch.device("meta"):
        denoiser = DenoisingUNet3D(UNetConfig.denoiser(FULL, MOTION))
    made = {key: list(value.shape) for key, value in denoiser.state_dict().items()}
    assert made == golden_json("state_dict_keys.json")["denoising_unet"]


@pytest.mark.parametrize(
    ("kernel", "kind"),
    [
        ("_temporal_dot", "temporal"),
        ("_attention", "attention"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16", "attention"),
        ("sm90_xmma_fprop_implicit_gemm_f16f16_f16f32_f32_nhwckrsc_nhwc", "conv"),
        ("nvjet_sm90_hsh_160x128_64x5_1x2_h_badd_TNN", "linear"),
        ("gated_product", "linear"),
        ("spatial", "attention"),
        ("_layer_norm", "pointwise and norms"),
    ],
)
def test_kernels_have_a_class(kernel: str, kind: str) -> None:
    assert class_of(kernel) == kind


def test_floors_of_the_full_model() -> None:
    """Operations of a step at 768², 12 frames, as counted by hand: 15.0, 12 and 15.1 TFLOP."""
    with torch.device("meta"):
        denoiser = DenoisingUNet3D(UNetConfig.denoiser(FULL, MOTION)).to("meta")
    tokens = {320: 96 * 96, 640: 48 * 48, 1280: 24 * 24}
    kv = [
        torch.empty(1, 12 * 12 if name.startswith("mid") else tokens[block.width], block.width, device="meta")
        for name, block in denoiser.transformer_blocks.items()
    ]
    noise, audio = torch.empty(12, 4, 96, 96, device="meta"), torch.empty(12, 50, 384, device="meta")
    clip = ClipInputs(noise, audio, noise, {}, ReferenceCache(tuple((x, x) for x in kv)))
    floors = step_floors(denoiser, clip)
    assert floors["attention"] * MATRIX_RATE == pytest.approx(15.0e12, rel=0.02)
    assert floors["linear"] * MATRIX_RATE == pytest.approx(15.1e12, rel=0.02)
    # the four phases of up-sampling convolutions save a twelfth and more
    assert 9e12 < floors["conv"] * MATRIX_RATE < 12e12
