"""One spoken sentence. Apart from the engines, so that reading a corpus needs numpy alone."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass
class Utterance:
    """One spoken sentence: audio float32 (n,) at 16 kHz, phones (start s, end s, IPA)."""

    audio: NDArray[np.float32]
    phones: list[tuple[float, float, str]]
    voice: str
    language: str
    text: str
