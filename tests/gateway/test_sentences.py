"""Plain sentences out of texts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.sentences import FIRST_CHARS, MOST_CHARS, plain_text, sentences_of


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello. How are you? Fine!", ["Hello.", "How are you?", "Fine!"]),
        ("Dr. Smith paid 3.50 dollars, e.g. today.", ["Dr. Smith paid 3.50 dollars, e.g. today."]),
        ("你好。今天好吗？", ["你好。", "今天好吗？"]),
        ("First line\nsecond line", ["First line", "second line"]),
        ("**Bold** and `code` and <speak>markup</speak>.", ["Bold and code and markup ."]),
        ("[[h@l'oU]] 😀 ok", ["h@l'oU ok"]),
        ("...!?", []),
        ("", []),
    ],
)
def test_texts_are_cut_at_sentences(text: str, expected: list[str]) -> None:
    assert sentences_of(text) == expected


def test_a_long_first_sentence_is_cut_at_a_comma() -> None:
    first, *rest = sentences_of("This goes on, " * 30 + "and ends.")
    assert len(first) <= FIRST_CHARS and first.endswith(",")
    assert all(len(piece) <= MOST_CHARS for piece in rest)


@given(st.text(max_size=3000))
def test_any_text_gives_short_plain_pieces(text: str) -> None:
    for piece in sentences_of(text):
        assert 1 <= len(piece) <= MOST_CHARS
        assert piece.isprintable() and "<" not in piece and "[[" not in piece
        piece.encode()


@given(st.text("ab ,.;!?\n", max_size=500))
def test_no_word_is_lost(text: str) -> None:
    letters = [c for c in text if c.isalnum()]
    assert [c for piece in sentences_of(text) for c in piece if c.isalnum()] == letters


def test_markup_of_an_engine_is_no_command() -> None:
    assert plain_text("<voice name='x'>a</voice>\x1b[31m \u202eb") == "a [31m b"
