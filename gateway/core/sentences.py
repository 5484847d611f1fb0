"""Plain sentences out of a text, in pieces short enough that the first sound is early."""

from __future__ import annotations

import re
import unicodedata

from protocol.wire.limits import MAX_SENTENCE_CHARS

#: A first piece of more characters is cut at a comma, so that its sound comes early.
FIRST_CHARS = 160
#: Longest piece.
MOST_CHARS = min(400, MAX_SENTENCE_CHARS)

#: Marks of markup and of an engine's own commands: `<ssml>`, `[[phonemes]]`, *stress*, `code`, # headings.
_MARKUP = re.compile(r"<[^<>]{0,200}>|\[\[|\]\]|[<>*`#_|~\\{}]")
#: An end of a sentence, also in Chinese, Japanese, Hindi and Arabic. A full stop needs a space behind it.
_END = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？।؟])[”’」』）]*\s*|\n\s*")
_PAUSE = re.compile(r"(?<=[,;:])\s+|(?<=[、，；：،])\s*|\s+[–—-]+\s+")
#: Abbreviations that end with a full stop and no sentence.
_SHORT = re.compile(r"(?:^|\s)(?:Mr|Mrs|Ms|Dr|Prof|St|vs|e\.g|i\.e|z\.B|Nr|No|[A-Z])\.$")


def plain_text(text: str) -> str:
    """The text without markup, control characters and pictograms. Line ends stay."""
    text = unicodedata.normalize("NFC", text).replace("\r", "\n")
    text = _MARKUP.sub(" ", text)
    kept = (c if c == "\n" or unicodedata.category(c) not in _SILENT else " " for c in text)
    return re.sub(r"[^\S\n]+", " ", "".join(kept)).strip()


#: Categories of characters that are not spoken: controls, formats, surrogates, private ones, pictograms.
_SILENT = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "So", "Sk"})


def sentences_of(text: str) -> list[str]:
    """The pieces of a text in which they are spoken, in order, none without a letter or a digit."""
    pieces: list[str] = []
    begun = ""
    for sentence in _END.split(plain_text(text)):
        begun = f"{begun} {sentence}".strip()
        if _SHORT.search(begun):
            continue
        pieces += _cut(begun, MOST_CHARS if pieces else FIRST_CHARS)
        begun = ""
    pieces += _cut(begun, MOST_CHARS)
    return [piece for piece in pieces if any(character.isalnum() for character in piece)]


def _cut(sentence: str, most: int) -> list[str]:
    """A sentence in pieces of at most `MOST_CHARS`, of which the first has at most `most` where it can."""
    pieces: list[str] = []
    while len(sentence) > most:
        place = _place_to_cut(sentence, most)
        pieces.append(sentence[:place].strip())
        sentence = sentence[place:].strip()
        most = MOST_CHARS
    return [*pieces, sentence] if sentence else pieces


def _place_to_cut(sentence: str, most: int) -> int:
    """After the last pause before `most`, else at the last space, else in the middle of a word."""
    pauses = [found.end() for found in _PAUSE.finditer(sentence, 0, most) if found.end() > most // 4]
    if pauses:
        return pauses[-1]
    space = sentence.rfind(" ", 1, most)
    return space if space > 0 else most
