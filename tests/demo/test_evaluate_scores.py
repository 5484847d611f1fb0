"""The evaluation's figures on curves and pictures whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from demo.factory.evaluate.judge import mean_change
from demo.factory.evaluate.scores import (
    best_lag,
    closures_shut,
    correlation,
    edge_strength,
    edges_kept,
    inside,
    lag_correlations,
    loudness,
    peak_rate,
    psnr,
    seam_figure,
    ssim,
    syllables,
    wrongly_shut,
)
from demo.factory.evaluate.table import Section, as_markdown, as_text, count_met
from demo.factory.evaluate.trial_silence import HUM_DB, KINDS, NOISE_DB, background, blinks


def _pattern() -> tuple[torch.Tensor, torch.Tensor]:
    y, x = np.mgrid[:48, :64]
    a = np.stack([0.5 + 0.4 * np.sin(x / 5 + y / 9), 0.5 + 0.3 * np.cos(x / 7), (x + y) / 112])
    b = np.clip(a * 0.9 + 0.05 * np.sin(3 * x + 2 * y), 0, 1)
    return torch.from_numpy(a)[None], torch.from_numpy(b)[None]


def test_psnr() -> None:
    assert psnr(np.array([0.01, 0.0001])) == pytest.approx([20.0, 40.0])
    assert psnr(np.array([0.0])) == pytest.approx([100.0])


def test_ssim_is_scikit_images() -> None:
    # structural_similarity of luma: gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    a, b = _pattern()
    assert float(ssim(a, b)) == pytest.approx(0.6472006, abs=2e-5)


def test_ssim_of_equal_pictures_is_one_and_falls_with_noise() -> None:
    a, _ = _pattern()
    noise = torch.from_numpy(np.random.default_rng(0).standard_normal(a.shape))
    values = [float(ssim(a, a + scale * noise)) for scale in (0.0, 0.02, 0.1)]
    assert values[0] == pytest.approx(1.0, abs=1e-6)
    assert values[0] > values[1] > values[2]


@given(st.integers(-6, 6))
@settings(deadline=None)
def test_the_lag_of_a_shifted_curve_is_found(lag: int) -> None:
    curve = np.random.default_rng(1).standard_normal(120)
    truth, output = curve[6:-6], curve[6 - lag : len(curve) - 6 - lag]
    correlations = lag_correlations(output, truth)
    assert best_lag(correlations) == lag
    assert correlations.max() == pytest.approx(1.0)


def test_a_still_curve_correlates_with_nothing() -> None:
    assert correlation(np.full(9, 0.3), np.arange(9.0)) == 0.0


def test_closures_count_where_a_frame_shows_them() -> None:
    opening = np.full(24, 0.2)
    opening[[6, 13]] = 0.001
    closures = np.array([[0.24, 0.29], [0.40, 0.45], [0.53, 0.56], [0.60, 0.61], [0.99, 1.05]])
    # Frames 6, 10, 13 at 24 fps; the fourth falls between two frames and the last ends after the curve.
    assert closures_shut(opening, closures, 24) == (2, 3)


def test_a_mouth_that_stays_shut_is_told_apart() -> None:
    truth = np.array([0.0, 0.1, 0.2, 0.03])
    assert wrongly_shut(np.zeros(4), truth) == (2, 2)
    assert wrongly_shut(truth, truth) == (0, 2)


def test_seams() -> None:
    changes = np.ones(35)
    changes[[11, 23]] = 1.3
    assert seam_figure(changes, 12) == pytest.approx(1.3)
    with pytest.raises(ValueError, match="no clip"):
        seam_figure(np.ones(5), 12)


def test_changes_go_on_from_the_picture_before() -> None:
    pictures = np.zeros((3, 4, 4, 3), np.uint8)
    pictures[1] = 51
    assert mean_change(pictures, None) == pytest.approx([0.2, 0.2])
    assert mean_change(pictures, np.full((4, 4, 3), 255, np.uint8)) == pytest.approx([1.0, 0.2, 0.2])


def test_loudness_and_rate_of_a_modulated_tone() -> None:
    seconds = np.arange(8 * 16000) / 16000
    sound = np.sin(2 * np.pi * 200 * seconds) * (0.05 + np.sin(np.pi * 4.0 * seconds) ** 2)
    envelope = loudness(sound, 16000, 24, 8 * 24)
    assert envelope.min() >= 0 and envelope.max() <= 1 and np.ptp(envelope) > 0.5
    assert peak_rate(envelope, 24) == pytest.approx(4.0, abs=0.3)


def test_a_smear_keeps_fewer_edges_and_noise_no_more() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = torch.nn.functional.avg_pool2d(torch.rand(2, 3, 40, 40, generator=generator), 3, 1, 1)
    where = inside(torch.tensor([[[5, 5, 30, 30], [0, 0, 0, 0]], [[0, 0, 20, 20], [20, 20, 40, 40]]]), 40)
    assert where.sum((1, 2)).tolist() == [25 * 25, 2 * 20 * 20]
    assert edges_kept(truth, truth, where).tolist() == pytest.approx([1.0, 1.0])
    smeared = torch.nn.functional.avg_pool2d(truth, 5, 1, 2)
    assert edges_kept(smeared, truth, where).max() < 0.5
    noisy = smeared + 0.05 * torch.randn(truth.shape, generator=generator)
    assert (edges_kept(noisy, truth, where) - edges_kept(smeared, truth, where)).abs().max() < 0.1
    assert edges_kept(truth.roll(7, 2), truth, where).abs().max() < 0.3
    assert edge_strength(truth, truth, where).tolist() == pytest.approx([1.0, 1.0])
    assert edge_strength(smeared, truth, where).max() < 0.7
    assert edge_strength(truth.roll(7, 2), truth, where).min() > 0.8


def test_syllables_leave_out_what_is_slower_and_faster() -> None:
    seconds = np.arange(8 * 24) / 24
    slow, middle, fast = (np.sin(2 * np.pi * rate * seconds) for rate in (0.5, 4.0, 10.0))
    np.testing.assert_allclose(syllables(1 + slow + middle + fast, 24), middle, atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_backgrounds_have_their_level(kind: str) -> None:
    sound = background(kind, 32000, 3)
    wanted = {"digital silence": -np.inf, "room hum": HUM_DB}.get(kind, NOISE_DB)
    with np.errstate(divide="ignore"):
        level = 10 * np.log10(np.mean(sound.astype(np.float64) ** 2))
    assert level == pytest.approx(wanted, abs=0.2)
    assert np.array_equal(sound, background(kind, 32000, 3))


def test_blinks_are_rises() -> None:
    assert blinks(np.array([0.0, 0.4, 0.9, 1.0, 0.2, 0.0, 0.7, 0.1])) == 2
    assert blinks(np.array([0.9, 0.1])) == 1


def test_a_table_says_what_is_met() -> None:
    section = Section("Things")
    section.at_least("a", 31.0, 31, " dB")
    section.below("b", 0.2, 0.2)
    section.told("c", "3", "a note")
    assert count_met([section]) == (1, 2)
    assert [row.verdict for row in section.rows] == ["met", "NOT MET", ""]
    assert "31.00 dB  ≥ 31 dB  met" in as_text([section])
    lines = as_markdown(section)
    assert "| b | 0.20 | < 0.2 | **NOT MET** |" in lines and "- c: a note" in lines
