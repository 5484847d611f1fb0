"""When somebody speaks: the energy of 20 ms of sound against the quiet of the room."""

from __future__ import annotations

from collections import deque
from enum import Enum

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.float32]

RATE = 16_000
FRAME = RATE // 50
#: Times the room's quiet, and the least loudness, from which a frame counts as a voice.
LOUDER, LEAST = 4.0, 0.01
#: Frames with a voice that begin an utterance, and frames without one that end it.
BEGINS, ENDS = 6, 35
#: Frames before the beginning that belong to it: the first syllable.
BEFORE = 15


class Heard(Enum):
    """A change in what the listener hears."""

    BEGUN = "begun"
    ENDED = "ended"


class Listener:
    """Cuts a microphone's sound into utterances. `utterance` has the last one, shape (n,)."""

    def __init__(self) -> None:
        self.utterance: Samples = np.empty(0, np.float32)
        self._rest: Samples = np.empty(0, np.float32)
        self._quiet = LEAST / LOUDER
        self._frames: deque[Samples] = deque(maxlen=BEFORE + BEGINS)
        self._spoken: list[Samples] = []
        self._in_a_row = 0
        self._speaks = False

    def add(self, samples: Samples) -> list[Heard]:
        """Take sound, shape (n,). Returns the changes, in order."""
        sound = np.concatenate([self._rest, samples])
        whole = len(sound) // FRAME * FRAME
        self._rest = sound[whole:]
        changes = (self._add_frame(frame) for frame in sound[:whole].reshape(-1, FRAME))
        return [change for change in changes if change is not None]

    def _add_frame(self, frame: Samples) -> Heard | None:
        loudness = float(np.sqrt(np.mean(np.square(frame))))
        voiced = loudness > max(LEAST, LOUDER * self._quiet)
        if not voiced:  # the room's quiet follows slowly, so that a word does not count as quiet
            self._quiet += 0.05 * (loudness - self._quiet)
        if self._speaks:
            self._spoken.append(frame)
        else:
            self._frames.append(frame)
        self._in_a_row = self._in_a_row + 1 if voiced != self._speaks else 0
        if self._in_a_row < (ENDS if self._speaks else BEGINS):
            return None
        self._in_a_row = 0
        self._speaks = not self._speaks
        if self._speaks:
            self._spoken = list(self._frames)
            self._frames.clear()
            return Heard.BEGUN
        self.utterance = np.concatenate(self._spoken)
        return Heard.ENDED
