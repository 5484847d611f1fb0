"""Tokens of clips: which positions, which order, whatever the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from audio_worker.features import FeatureExtractor, choose_dtype
from audio_worker.frame_tokens import clip_positions
from audio_worker.sessions import DueClip
from demo.factory.make_whisper import DEFAULT_OUT
from protocol.process.settings import load_settings


def due(seed: int, fps: int = 24, frames: int = 12, session: str = "a") -> DueClip:
    samples = (np.random.default_rng(seed).standard_normal(24000) * 0.1).astype(np.float32)
    return DueClip(session, 0, seed, 8000 * seed, fps, frames, "anna", "calm", samples, 0.0)


def extractor(dtype: torch.dtype = torch.float32, margin: int = 2) -> FeatureExtractor:
    return FeatureExtractor(str(DEFAULT_OUT), "short", margin, torch.device("cpu"), dtype)


def test_a_clip_is_the_end_of_its_window() -> None:
    positions = clip_positions(12, 24, 2)
    assert positions.shape == (12, 10)
    assert positions[0].tolist() == list(range(46, 56))  # the first frame is at 1.0 s = position 50
    assert positions[1].tolist() == list(range(48, 58))
    assert positions[11].tolist() == [68, 69, 70, 71, 72, 73, 74, 74, 74, 74]  # no sound beyond the clip


def test_a_look_ahead_gives_the_last_frames_sound() -> None:
    assert clip_positions(3, 24, 2)[2].tolist() == [68, 69, 70, 71, 72, 73, 74, 74, 74, 74]
    assert clip_positions(3, 24, 2, ahead=320)[2].tolist() == [67, 68, 69, 70, 71, 72, 73, 74, 74, 74]
    assert clip_positions(3, 24, 2, ahead=320)[1].tolist() == list(range(65, 75))


@pytest.mark.parametrize(("fps", "frames"), [(12, 6), (8, 4), (25, 12), (30, 12), (8, 12)])
def test_other_rates(fps: int, frames: int) -> None:
    centres = clip_positions(frames, fps, 0)[:, 0]
    for i, centre in enumerate(centres.tolist()):
        seconds = 1.5 - frames / fps + i / fps
        assert abs(centre - seconds * 50) <= 1.0


@torch.no_grad()
def test_tokens_are_the_features_at_the_positions() -> None:
    clip, features = due(1), extractor()
    tokens = features.tokens([clip])[0]
    assert tokens.shape == (12, 50, 384) and tokens.dtype == np.float16
    states = features.encoder.features(torch.from_numpy(clip.samples)[None])[0]
    positions = clip_positions(12, 24, 2)
    for frame, place, layer in [(0, 0, 0), (3, 7, 2), (11, 9, 4)]:
        wanted = states[positions[frame, place], layer].half().numpy()
        np.testing.assert_array_equal(tokens[frame, 5 * place + layer], wanted)


def test_the_batch_does_not_matter() -> None:
    clips = [due(1), due(2, 12, 6, "b"), due(3, 8, 4, "c")]
    features = extractor()
    for clip, tokens in zip(clips, features.tokens(clips), strict=True):
        alone = features.tokens([clip])[0]
        assert tokens.shape == (clip.clip_frames, 50, 384)
        np.testing.assert_allclose(tokens.astype(float), alone.astype(float), atol=0.02)


def test_bfloat16_is_close() -> None:
    exact, fast = (
        extractor(dtype).tokens([due(4)])[0].astype(float) for dtype in (torch.float32, torch.bfloat16)
    )
    error = np.linalg.norm(fast - exact) / np.linalg.norm(exact)
    print(f"whisper: short window in bfloat16 rel err {error:.1e}")
    assert error < 0.03


def test_the_margin_sets_the_number_of_tokens() -> None:
    assert extractor(margin=1).tokens([due(1)])[0].shape == (12, 30, 384)


def test_arithmetic() -> None:
    default = load_settings([], {})
    assert choose_dtype(default, torch.device("cuda")) == torch.float16
    assert choose_dtype(load_settings(["--dtype", "float32"], {}), torch.device("cpu")) == torch.float32
