"""The bounds of the project's English, as `python -m scripts.bench.host.house` measures them."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts.bench.host.house.__main__ import PAGES, ROOT, SHIPPED, pages, python_files, tracked_files
from scripts.bench.host.house.code import docstrings, quantile
from scripts.bench.host.house.english import habits, sentence_lengths

#: Words in a sentence of the documentation, at the median and at the 95th percentile.
MEDIAN, P95 = 18, 35
#: "what" and semicolons in 1,000 words of docstrings, for each package.
WHAT, SEMICOLONS = 2.0, 3.0


@pytest.fixture(scope="module")
def tracked() -> list[Path]:
    return tracked_files(ROOT)


@pytest.mark.parametrize("group", list(PAGES))
def test_sentences_of_the_documentation_are_short(group: str, tracked: list[Path]) -> None:
    lengths = [
        length
        for page in pages(tracked)[group]
        for length in sentence_lengths((ROOT / page).read_text(encoding="utf-8"))
    ]
    assert quantile(lengths, 0.5) <= MEDIAN
    assert quantile(lengths, 0.95) <= P95


@pytest.mark.parametrize("package", [*SHIPPED, "tests"])
def test_docstrings_say_which_thing_and_not_what(package: str, tracked: list[Path]) -> None:
    counted = habits(text for file in python_files(ROOT, tracked, package) for text in docstrings(file.tree))
    assert counted.words > 0
    assert counted.what_per_1000 <= WHAT, f"{counted.what} in {counted.words} words"


@pytest.mark.parametrize("package", SHIPPED)
def test_docstrings_end_their_sentences(package: str, tracked: list[Path]) -> None:
    counted = habits(text for file in python_files(ROOT, tracked, package) for text in docstrings(file.tree))
    assert counted.semicolons_per_1000 <= SEMICOLONS, f"{counted.semicolons} in {counted.words} words"
