"""How many frames a GPU's decoder makes at once."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from encoder_worker.by_name import NamedDecoders, chunk_of
from protocol.process.settings import load_settings


@pytest.mark.parametrize(
    ("name", "frames", "chunk"),
    [
        ("tiny", 12, 6), ("tiny", 6, 6), ("tiny", 4, 4), ("tiny", 3, 3), ("tiny", 8, 4), ("tiny", 1, 1),
        ("kl", 12, 2), ("kl-8bit", 4, 2), ("kl", 3, 2), ("kl", 1, 1),
    ],
)  # fmt: skip
def test_chunks_divide_a_clip_where_they_can(name: str, frames: int, chunk: int) -> None:
    assert chunk_of(name, frames) == chunk


def test_a_decoder_that_was_made_for_short_clips_is_made_again_for_longer_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As a trial of short clips leaves one behind. Longer ones would take longer with it."""
    made: list[tuple[str, int]] = []

    def make(_self: NamedDecoders, name: str, frames: int) -> SimpleNamespace:
        made.append((name, frames))
        return SimpleNamespace(chunk=chunk_of(name, frames))

    monkeypatch.setattr(NamedDecoders, "_make", make)
    own = SimpleNamespace(chunk=2)
    named = NamedDecoders(load_settings([], {}), None, None, own, "kl")  # type: ignore[arg-type]
    for frames in (3, 4, 12, 6, 3, 12):
        named.get("tiny", frames)
        named.get("kl", frames)
    assert made == [("tiny", 3), ("tiny", 4), ("tiny", 12)]
