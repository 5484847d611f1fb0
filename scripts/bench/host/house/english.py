"""How long sentences of Markdown are, and two habits of docstrings: `what` and semicolons."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

FENCE = re.compile(r"^\s*(```|~~~)")
#: A heading, a row of a table, a picture by itself, a rule, or a line of HTML: no sentences.
NO_PROSE = re.compile(r"^\s*(#|\||!\[[^\]]*\]\([^)]*\)\s*$|---+\s*$|<)")
LIST_ITEM = re.compile(r"^\s*([-*+]|\d+[.)])\s+")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)")
CODE = re.compile(r"`[^`]*`")
#: A full stop, question mark or exclamation mark ends a sentence where a capital, a digit or code follows.
END = re.compile(r"(?<=[.!?])[)\"”*_]*\s+(?=[*_(\"“]*[A-Z0-9`])")
ABBREVIATION = re.compile(r"\b(e\.g|i\.e|cf|vs|etc|Fig|No)\.\s")


@dataclass(frozen=True)
class Habits:
    """Counts over a set of docstrings."""

    words: int
    what: int
    semicolons: int

    @property
    def what_per_1000(self) -> float:
        """How often `what` stands in 1,000 words."""
        return self.what * 1000 / self.words if self.words else 0.0

    @property
    def semicolons_per_1000(self) -> float:
        """Semicolons in 1,000 words."""
        return self.semicolons * 1000 / self.words if self.words else 0.0


def habits(docstrings: Iterable[str]) -> Habits:
    """Count words, `what` and semicolons. Code in back-ticks is left out."""
    words = what = semicolons = 0
    for docstring in docstrings:
        text = CODE.sub("code", docstring)
        words += sum(any(map(str.isalnum, word)) for word in text.split())
        what += len(re.findall(r"\bwhat\b", text, re.IGNORECASE))
        semicolons += text.count(";")
    return Habits(words, what, semicolons)


def sentence_lengths(markdown: str) -> list[int]:
    """The number of words of every sentence of a page.

    Code blocks, headings, tables and pictures are left out. An item of a list is a paragraph of its own.
    A span of code or a link counts as its words.
    """
    return [
        count
        for paragraph in paragraphs(markdown)
        for sentence in END.split(ABBREVIATION.sub(r"\1 ", paragraph))
        if (count := sum(any(map(str.isalnum, word)) for word in sentence.split()))
    ]


def paragraphs(markdown: str) -> Iterator[str]:
    """Paragraphs and list items, each on one line, with links replaced by their text."""
    lines: list[str] = []
    fenced = False
    for line in markdown.splitlines():
        if FENCE.match(line):
            fenced = not fenced
        ends = fenced or not line.strip() or FENCE.match(line) or NO_PROSE.match(line)
        if lines and (ends or LIST_ITEM.match(line)):
            yield LINK.sub(r"\1", " ".join(lines))
            lines = []
        if not ends:
            lines.append(LIST_ITEM.sub("", line).strip())
    if lines:
        yield LINK.sub(r"\1", " ".join(lines))
