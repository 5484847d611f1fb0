"""Phone sets of the engines, all turned into IPA, so that one viseme table serves them all."""

ARPABET = {
    "aa": "ɑ", "ae": "æ", "ah": "ʌ", "ao": "ɔ", "aw": "aʊ", "ax": "ə", "axr": "ɚ", "ay": "aɪ", "b": "b",
    "ch": "tʃ", "d": "d", "dh": "ð", "dx": "ɾ", "eh": "ɛ", "el": "əl", "em": "m", "en": "ən", "er": "ɝ",
    "ey": "eɪ", "f": "f", "g": "ɡ", "hh": "h", "hv": "h", "ih": "ɪ", "iy": "i", "jh": "dʒ", "k": "k",
    "l": "l", "m": "m", "n": "n", "nx": "n", "ng": "ŋ", "ow": "oʊ", "oy": "ɔɪ", "p": "p", "r": "ɹ",
    "s": "s", "sh": "ʃ", "t": "t", "th": "θ", "uh": "ʊ", "uw": "u", "v": "v", "w": "w", "y": "j", "z": "z",
    "zh": "ʒ",
}  # fmt: skip
_ROMANCE = {
    "i": "i", "e": "e", "E": "ɛ", "a": "a", "O": "ɔ", "o": "o", "u": "u", "j": "j", "w": "w", "p": "p",
    "t": "t", "k": "k", "b": "b", "d": "d", "g": "ɡ", "f": "f", "s": "s", "S": "ʃ", "v": "v", "z": "z",
    "Z": "ʒ", "ts": "ts", "tS": "tʃ", "dz": "dz", "dZ": "dʒ", "m": "m", "n": "n", "J": "ɲ", "ng": "ŋ",
    "nf": "ɱ", "l": "l", "L": "ʎ", "r": "r", "rr": "r", "ax": "ə",
}  # fmt: skip
ITALIAN = {**_ROMANCE, **{f"{vowel}1": _ROMANCE[vowel] for vowel in "ieEaOou"}}
CATALAN = {**ITALIAN, "ax": "ə"}
CZECH = {
    "a": "a", "b": "b", "c": "ts", "c~": "tʃ", "ch": "x", "d": "d", "d~": "ɟ", "dz": "dz", "dz~": "dʒ",
    "e": "ɛ", "f": "f", "g": "ɡ", "h": "ɦ", "i": "i", "j": "j", "k": "k", "l": "l", "m": "m", "n": "n",
    "n*": "ŋ", "n~": "ɲ", "o": "o", "p": "p", "r": "r", "r~": "r̝", "r~*": "r̝", "s": "s", "s~": "ʃ",
    "t": "t", "t~": "c", "u": "u", "v": "v", "z": "z", "z~": "ʒ", "a:": "aː", "e:": "ɛː", "i:": "iː",
    "o:": "oː", "u:": "uː",
}  # fmt: skip
_FINNISH_SHORT = {
    "a": "ɑ", "e": "e", "i": "i", "o": "o", "u": "u", "y": "y", "@": "æ", "7": "ø", "&": "æ", "p": "p",
    "t": "t", "k": "k", "b": "b", "d": "d", "g": "ɡ", "f": "f", "T": "θ", "D": "ð", "s": "s", "z": "z",
    "S": "ʃ", "Z": "ʒ", "h": "h", "v": "ʋ", "m": "m", "n": "n", "N": "ŋ", "l": "l", "L": "ʎ", "r": "r",
    "j": "j", "w": "w",
}  # fmt: skip
FINNISH = {**_FINNISH_SHORT, **{f"{key}:": f"{ipa}ː" for key, ipa in _FINNISH_SHORT.items()}}
RUSSIAN = {
    "ii": "i", "yy": "ɨ", "uu": "u", "ee": "e", "oo": "o", "aa": "a", "a": "ʌ", "e": "ɪ", "i": "ɪ",
    "y": "ɨ", "u": "ʊ", "ae": "æ", "ay": "ə", "ur": "ʊ", "p": "p", "pp": "pʲ", "b": "b", "bb": "bʲ",
    "t": "t", "tt": "tʲ", "d": "d", "dd": "dʲ", "k": "k", "kk": "kʲ", "g": "ɡ", "gg": "ɡʲ", "c": "ts",
    "ch": "tɕ", "f": "f", "ff": "fʲ", "v": "v", "vv": "vʲ", "s": "s", "ss": "sʲ", "z": "z", "zz": "zʲ",
    "sh": "ʂ", "sch": "ɕ", "zh": "ʐ", "h": "x", "hh": "xʲ", "m": "m", "mm": "mʲ", "n": "n", "nn": "nʲ",
    "l": "l", "ll": "lʲ", "r": "r", "rr": "rʲ", "j": "j",
}  # fmt: skip
PAUSES = frozenset({"", "pau", "#", "##", "_", "h#", "sil", "brth", "ssil"})
PAUSE = "_"


def to_ipa(phone: str, table: dict[str, str]) -> str:
    """IPA of an engine's phone, `PAUSE` for its silences.

    Raises:
        ValueError: the phone is not in the table.
    """
    if phone in PAUSES:
        return PAUSE
    if phone not in table:
        raise ValueError(
            f"phone {phone!r} is not in the engine's table; add it to demo/factory/speech/phones.py"
        )
    return table[phone]
