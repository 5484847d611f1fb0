"""One spoken sentence. It lies apart from the engines, so that reading a corpus needs numpy alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class Utterance:
    """One spoken sentence.

    Attributes:
        audio: samples float32 (n,) at 16 kHz.
        phones: start and end in seconds, and IPA, of each phone.
        voice: "engine:name".
        language: language of the text.
        text: the sentence.
    """

    audio: NDArray[np.float32]
    phones: list[tuple[float, float, str]]
    voice: str
    language: str
    text: str
