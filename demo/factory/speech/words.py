"""Words by chance, so that a voice says more than the written sentences hold.

A language with a few written sentences teaches a listener these sentences and not the language. So many
utterances are words of a dictionary, in any order. They mean nothing, and the mouth does not need that.
Dictionaries are Debian's; a language without one gets the words of its written sentences.
"""

import random
import re
from functools import cache
from pathlib import Path

from demo.factory.speech.texts import sentences

DICTIONARIES = {
    "en": Path("/usr/share/dict/american-english"),
    "ca": Path("/usr/share/dict/catalan"),
    "cs": Path("/usr/share/hunspell/cs_CZ.dic"),
    "de": Path("/usr/share/dict/ngerman"),
    "es": Path("/usr/share/dict/spanish"),
    "fr": Path("/usr/share/dict/french"),
    "id": Path("/usr/share/hunspell/id_ID.dic"),
    "it": Path("/usr/share/dict/italian"),
    "nl": Path("/usr/share/dict/dutch"),
    "pl": Path("/usr/share/dict/polish"),
    "pt": Path("/usr/share/dict/brazilian"),
    "ru": Path("/usr/share/hunspell/ru_RU.dic"),
    "sv": Path("/usr/share/dict/swedish"),
    "tr": Path("/usr/share/hunspell/tr_TR.dic"),
}
PACKAGES = (
    "wamerican wbrazilian wcatalan wdutch wfrench witalian wngerman wpolish wspanish wswedish"
    " hunspell-cs hunspell-id hunspell-ru hunspell-tr"
)
KEPT = 40_000  # words of a longer dictionary that remain at least, evenly from all of it
LONGEST = 12  # letters
MARKS = " ,.?!¿¡，。？！、:;।"
BREATH = 0.12  # chance of a comma after a word


class DictionaryError(RuntimeError):
    """A dictionary is missing. The message names the packages."""


@cache
def words(language: str) -> list[str]:
    """Words of a language. Chinese and Japanese, written without spaces, have their characters.

    Raises:
        DictionaryError: the dictionary is not installed.
    """
    path = DICTIONARIES.get(language)
    if path is None:
        text = " ".join(sentences(language))
        parts = text if language in ("cmn", "ja") else text.split()
        stripped = [part.strip(MARKS) for part in parts]
        return [part for part in stripped if part]
    if not path.is_file():
        advice = f"install the word lists (Debian: apt-get install {PACKAGES})"
        raise DictionaryError(f"{path} is missing; {advice}")
    lines = path.read_text(encoding="utf-8", errors="ignore").splitlines()
    found = [line.split("/")[0].split()[0] for line in lines if line.strip()]
    plain = [word for word in found if re.fullmatch(r"[^\W\d_]+", word) and 1 < len(word) <= LONGEST]
    usual = [word for word in plain if not word.isupper()]
    return usual[:: max(1, len(usual) // KEPT)]


def take_words(language: str, rng: random.Random) -> str:
    """Four to ten words by chance, with some pauses between them."""
    pool = words(language)
    joined = language in ("cmn", "ja")
    count = rng.randint(8, 20) if joined else rng.randint(4, 10)
    out = ""
    for number in range(count):
        last = number == count - 1
        between = "" if joined else " "
        mark = ", " if rng.random() < BREATH else between
        out += rng.choice(pool) + ("." if last else mark)
    return out[0].upper() + out[1:]
