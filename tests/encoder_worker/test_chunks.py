"""How many frames a GPU's decoder makes at once."""

from __future__ import annotations

import pytest

from encoder_worker.by_name import chunk_of


@pytest.mark.parametrize(
    ("name", "frames", "chunk"),
    [
        ("tiny", 12, 4), ("tiny", 6, 3), ("tiny", 4, 4), ("tiny", 3, 3), ("tiny", 8, 4), ("tiny", 1, 1),
        ("kl", 12, 2), ("kl-8bit", 4, 2), ("kl", 3, 1), ("kl", 1, 1),
    ],
)  # fmt: skip
def test_chunks_divide_a_clip_where_they_can(name: str, frames: int, chunk: int) -> None:
    assert chunk_of(name, frames) == chunk
