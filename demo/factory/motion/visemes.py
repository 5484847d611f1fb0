"""Visemes: for each IPA symbol, targets of the figure's mouth.

The groups follow the usual viseme classes (e.g. MPEG-4 facial animation, table of 14 visemes), refined for
vowels by height (mouth_open), backness and rounding (mouth_width, mouth_round).
"""

import unicodedata
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_TARGETS = ("open", "width", "round", "teeth", "pressed", "tongue")
CHANNELS = ("mouth_open", "mouth_width", "mouth_round", "teeth", "lips_pressed", "tongue")


@dataclass(frozen=True)
class Viseme:
    """Targets of `CHANNELS` for one sound.

    `hold` is the weight of the sound's jaw and contact targets, and `shape` that of its lip shape.
    """

    open: float
    width: float = 0.0
    round: float = 0.0
    teeth: float = 0.0
    pressed: float = 0.0
    tongue: float = 0.0
    hold: float = 1.0
    shape: float = 1.0
    closed: bool = False


REST = Viseme(0.0, hold=1.3, shape=0.8)
_BILABIAL = Viseme(0.0, pressed=0.8, hold=1.5, shape=0.25, closed=True)
_LABIODENTAL = Viseme(0.10, 0.15, 0.0, teeth=1.0, hold=2.5, shape=0.6)
_DENTAL = Viseme(0.22, 0.10, 0.0, teeth=0.4, tongue=0.9, hold=1.5, shape=0.4)
_ALVEOLAR = Viseme(0.24, 0.15, 0.0, teeth=0.45, tongue=0.25, hold=0.9, shape=0.25)
_SIBILANT = Viseme(0.16, 0.30, 0.0, teeth=0.7, hold=1.3, shape=0.5)
_POSTALVEOLAR = Viseme(0.20, -0.25, 0.55, teeth=0.45, hold=1.2, shape=1.2)
_LATERAL = Viseme(0.34, 0.10, 0.0, teeth=0.2, tongue=0.7, hold=0.9, shape=0.3)
_RHOTIC = Viseme(0.26, -0.15, 0.40, tongue=0.2, hold=0.9, shape=0.7)
_TRILL = Viseme(0.32, 0.05, 0.0, teeth=0.2, tongue=0.45, hold=0.8, shape=0.3)
_PALATAL = Viseme(0.24, 0.55, 0.0, teeth=0.35, hold=0.8, shape=0.7)
_VELAR = Viseme(0.32, 0.05, 0.0, hold=0.45, shape=0.15)
_GLOTTAL = Viseme(0.35, 0.0, 0.0, hold=0.12, shape=0.06)
_LABIOVELAR = Viseme(0.14, -0.60, 1.0, hold=1.4, shape=1.6)


def _vowel(opening: float, width: float, rounding: float = 0.0) -> Viseme:
    return Viseme(opening, width, rounding, teeth=0.25 * max(0.0, width), hold=1.0, shape=1.0)


_GROUPS: tuple[tuple[str, Viseme], ...] = (
    ("_", REST),
    ("mpbɓʙ", _BILABIAL),
    ("fvɱʋ", _LABIODENTAL),
    ("β", Viseme(0.14, 0.0, 0.1, hold=1.3, shape=0.4)),
    ("ɸ", Viseme(0.14, 0.0, 0.25, hold=1.3, shape=0.5)),
    ("θðɬ", _DENTAL),
    ("tdnʈɖɳɗ", _ALVEOLAR),
    ("sz", _SIBILANT),
    ("ʃʒʂʐɕʑɧ", _POSTALVEOLAR),
    ("lɫɭʎ", _LATERAL),
    ("ɹɻɚɝ", _RHOTIC),
    ("rɾɽ", _TRILL),
    ("jçɲɟcʝ", _PALATAL),
    ("kɡgŋxɣqɢχɴ", _VELAR),
    ("hɦʔʕħʁʀʰɥ", _GLOTTAL),
    ("wʍɰ", _LABIOVELAR),
    ("i", _vowel(0.26, 0.85)),
    ("ɪ", _vowel(0.38, 0.55)),
    ("ᵻɨ", _vowel(0.34, 0.35)),
    ("ɯ", _vowel(0.34, 0.25)),
    ("e", _vowel(0.48, 0.65)),
    ("ɛ", _vowel(0.60, 0.50)),
    ("æ", _vowel(0.82, 0.50)),
    ("a", _vowel(0.88, 0.20)),
    ("ɑ", _vowel(0.90, 0.0)),
    ("ɐ", _vowel(0.75, 0.10)),
    ("ʌ", _vowel(0.68, 0.10)),
    ("ə", Viseme(0.45, 0.05, 0.0, hold=0.6, shape=0.4)),
    ("ɘ", _vowel(0.45, 0.20)),
    ("ɜ", _vowel(0.52, -0.05, 0.20)),
    ("ɞ", _vowel(0.55, -0.10, 0.35)),
    ("ɤ", _vowel(0.48, 0.05)),
    ("ɒ", _vowel(0.85, -0.15, 0.35)),
    ("ɔ", _vowel(0.68, -0.25, 0.60)),
    ("o", _vowel(0.50, -0.40, 0.85)),
    ("ɵ", _vowel(0.40, -0.30, 0.70)),
    ("ʊ", _vowel(0.36, -0.35, 0.75)),
    ("u", _vowel(0.26, -0.60, 1.0)),
    ("ʉ", _vowel(0.26, -0.50, 0.90)),
    ("y", _vowel(0.24, -0.40, 0.95)),
    ("ʏ", _vowel(0.30, -0.30, 0.80)),
    ("ø", _vowel(0.42, -0.30, 0.75)),
    ("œ", _vowel(0.56, -0.20, 0.60)),
)
TABLE: dict[str, Viseme] = {symbol: viseme for symbols, viseme in _GROUPS for symbol in symbols}
# Sounds whose own symbol says less than their context: ɚ and ɝ are vowels, ɥ is rounded.
TABLE["ɚ"] = _vowel(0.42, -0.15, 0.35)
TABLE["ɝ"] = _vowel(0.46, -0.15, 0.40)
TABLE["ɥ"] = Viseme(0.16, -0.45, 0.95, hold=1.2, shape=1.4)
# Length, stress, tone, palatalisation, syllable and tie marks change nothing that the figure shows.
_MODIFIERS = frozenset("ːˑˈˌʲˠˤᵝ.'\"-|^*;:!?0123456789˥˦˧˨˩ʼ‿͡↓↑ʱ\u200d")


def visemes(phone: str) -> list[Viseme]:
    """The visemes an IPA phone passes through, in order (two for a diphthong or an affricate).

    Raises:
        ValueError: the table has no entry for a symbol. The text names phone and symbol.
    """
    if phone == "_":
        return [REST]
    found: list[Viseme] = []
    for symbol in unicodedata.normalize("NFD", phone.replace("ç", "c\u0327")):
        if symbol == "\u0327" and found:
            found[-1] = _PALATAL
        elif symbol == "ʷ" and found:
            found.append(_LABIOVELAR)
        elif symbol in TABLE:
            found.append(TABLE[symbol])
        elif symbol not in _MODIFIERS and unicodedata.category(symbol) not in ("Mn", "Sk"):
            raise ValueError(f"no viseme for {symbol!r} (U+{ord(symbol):04X}) in phone {phone!r}")
    if len(found) > 1 and found[-1] is TABLE["ʰ"]:
        found.pop()
    return found


def blended(count: int, seed: int = 0) -> NDArray[np.float32]:
    """Mouths (count, 6), each between two visemes, as coarticulation has it.

    Some are nearly at rest, some louder. One in five is open by any amount, beyond the range of speech. The
    first is at rest, the second pressed.
    """
    random = np.random.default_rng(seed)
    targets = np.array([[getattr(v, name) for name in _TARGETS] for v in dict.fromkeys(TABLE.values())])
    first, second = (targets[random.integers(len(targets), size=count)] for _ in range(2))
    mouths = first + random.random((count, 1)) * (second - first)
    mouths *= np.minimum(1.6 * random.random((count, 1)), 1.0)
    mouths[:, 0] *= random.uniform(0.85, 1.15, count)
    mouths[::5, 0] = random.random(len(mouths[::5]))
    mouths[0] = 0.0
    mouths[1] = [getattr(_BILABIAL, name) for name in _TARGETS]
    blends: NDArray[np.float32] = mouths.astype(np.float32)
    return blends
