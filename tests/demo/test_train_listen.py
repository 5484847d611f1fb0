"""The stage `listen`: corrections that are nothing at first, and a start for the denoiser's attention."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from audio_worker.mel import mel_filters
from audio_worker.whisper import SpeechEncoder
from demo.factory.make_whisper import DEFAULT_OUT
from demo.factory.train.listen import (
    MASKED_BANDS,
    MASKS,
    LowRank,
    MouthReader,
    correct,
    load_ears,
    mask_bands,
    save_corrections,
    spectrograms,
)
from gpu_worker.denoiser.model.attention import Attention, attend


def test_corrections_start_as_nothing_and_are_found_again(tmp_path: Path) -> None:
    torch.manual_seed(0)
    encoder = SpeechEncoder("short", width=16, heads=2, layers=1, n_mels=8).requires_grad_(False)
    mel = torch.randn(1, 8, 150)
    before = encoder(mel)
    path = tmp_path / "adapter.safetensors"
    corrections = correct(encoder, path)
    assert torch.equal(encoder(mel), before)
    assert {name for name, p in encoder.encoder.named_parameters() if p.requires_grad} == {
        f"{name}.parametrizations.weight.0.{part}" for name in corrections for part in ("down", "up")
    }
    nn.init.normal_(corrections["layers.0.fc1"].up)
    changed = encoder(mel)
    assert not torch.allclose(changed, before)
    save_corrections(corrections, path)

    torch.manual_seed(0)
    other = SpeechEncoder("short", width=16, heads=2, layers=1, n_mels=8)
    correct(other, path)  # trained further
    torch.testing.assert_close(other(mel), changed)


def test_every_correction_learns(tmp_path: Path) -> None:
    """Gradients pass through spectrogram, autocast and the recorded states to every layer's correction."""
    torch.manual_seed(0)
    encoder = SpeechEncoder("short", width=64, heads=1, layers=2).requires_grad_(False)
    corrections = correct(encoder, tmp_path / "none.safetensors")
    parameters = [p for correction in corrections.values() for p in (correction.down, correction.up)]
    pcm = 0.3 * torch.randn(2, 24000)
    optimizer = torch.optim.Adam(parameters, lr=1e-2)
    losses = []
    for _ in range(3):
        with torch.autocast("cpu", torch.bfloat16):
            loss = (encoder.features(pcm) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[2] < losses[1] < losses[0]
    for name, correction in corrections.items():
        for gradient in (correction.down.grad, correction.up.grad):
            assert gradient is not None and gradient.abs().sum() > 0, name


def test_spectrograms_are_whisper_s_own() -> None:
    encoder = load_ears(DEFAULT_OUT, Path("none.safetensors"))
    loudness = torch.tensor([[0.2], [1e-3], [0.0]])
    pcm = loudness * torch.randn(3, 24000, generator=torch.Generator().manual_seed(0))
    filters = torch.from_numpy(mel_filters(80)).float()
    torch.testing.assert_close(spectrograms(pcm, filters), encoder.spectrogram(pcm))


def test_masks_leave_out_whole_bands_and_no_moments() -> None:
    torch.manual_seed(0)
    bands = torch.randn(64, 80, 150)
    masked = mask_bands(bands)
    changed = (masked != bands).float().mean(2)
    assert set(changed.unique().tolist()) == {
        0.0,
        1.0,
    }  # a band is left out for the whole window, or not at all
    left_out = changed.sum(1)
    assert left_out.max() <= MASKS * MASKED_BANDS and left_out.min() == 0 and left_out.mean() > 3
    means = bands.mean((1, 2))[:, None, None].expand_as(bands)
    torch.testing.assert_close(masked[changed > 0], means[changed > 0], atol=1e-5, rtol=0)


def test_corrections_of_another_rank_are_not_taken(tmp_path: Path) -> None:
    encoder = SpeechEncoder("short", width=16, heads=2, layers=1, n_mels=8)
    path = tmp_path / "adapter.safetensors"
    corrections = correct(encoder, path)
    thin = {name: LowRank(torch.zeros(c.up.shape[0], c.down.shape[1]), 2) for name, c in corrections.items()}
    for correction in thin.values():
        nn.init.normal_(correction.up)
    save_corrections(thin, path)
    again = correct(SpeechEncoder("short", width=16, heads=2, layers=1, n_mels=8), path)
    assert all(not c.up.any() for c in again.values())


def test_ears_are_whisper_s_own_without_a_file(tmp_path: Path) -> None:
    encoder = load_ears(DEFAULT_OUT, tmp_path / "none.safetensors")
    assert not any(isinstance(m, LowRank) for m in encoder.modules())


def test_a_reader_starts_an_attention_that_reads_alike() -> None:
    torch.manual_seed(1)
    mean, deviation = torch.randn(384), torch.rand(384) + 0.5
    reader = MouthReader(64, 4, mean, deviation)
    nn.init.normal_(reader.query)
    tokens = mean + deviation * torch.randn(2, 50, 384)
    attention, norm = Attention(64, 4, 384), nn.LayerNorm(64)
    reader.start(attention, norm, torch.Generator().manual_seed(0))
    with torch.no_grad():
        queries = attention.to_q(norm(torch.randn(2, 9, 64)))
        heard = attention.project_out(attend(queries, *attention.keys_values(tokens), attention.heads))
        spread = heard.std(dim=1).mean() / heard.std()
        assert spread < 0.2  # every place hears nearly the same
        wanted = reader(tokens)
        # the six parameters lie along six directions: distances between moments are kept
        ours = (heard[0].mean(0) - heard[1].mean(0)).norm()
        theirs = (wanted[0] - wanted[1]).norm() * 64**0.5 / 3.0
        assert abs(float(ours / theirs) - 1) < 0.15
