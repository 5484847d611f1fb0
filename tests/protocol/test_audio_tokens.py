"""Token positions against the official ones, and at the ends of the buffer."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.model.audio_tokens import audio_token_positions, tokens_per_frame
from tests.helpers.parity import golden


@pytest.mark.parametrize("fps", [24, 25, 12])
def test_official_positions(fps: int) -> None:
    wanted = golden("pipeline.npz")[f"token_positions_fps{fps}"]
    assert np.array_equal(audio_token_positions(len(wanted), fps, 70), wanted)
    print(f"parity: token positions of {len(wanted)} frames at {fps} fps exact")


@given(
    frames=st.integers(1, 40), fps=st.integers(1, 60), length=st.integers(1, 200), margin=st.integers(0, 4)
)
def test_positions_exist_and_never_go_back(frames: int, fps: int, length: int, margin: int) -> None:
    positions = audio_token_positions(frames, fps, length, margin=margin)
    assert positions.shape == (frames, tokens_per_frame(margin) // 5)
    assert positions.min() >= 0
    assert positions.max() < length
    assert (np.diff(positions, axis=0) >= 0).all()


def test_offset_is_history_before_the_first_frame() -> None:
    whole = audio_token_positions(36, 24, 75)
    assert np.array_equal(audio_token_positions(12, 24, 75, offset=50), whole[24:])


def test_counts_must_be_positive() -> None:
    with pytest.raises(ValueError, match="fps"):
        audio_token_positions(1, 0, 10)
