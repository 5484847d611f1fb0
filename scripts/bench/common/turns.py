"""The sound of a conversation of which half is silent, over an open microphone in a quiet room."""

from __future__ import annotations

import numpy as np

from protocol.wire.clock import SAMPLE_RATE
from protocol.wire.messages import Samples

#: Level of the room's noise, in dBFS.
ROOM_DB = -50.0
#: Values of `--silence` that are compared.
WAYS = ("denoise", "loop")
#: Seconds of silence before a measurement: the loop of a gesture of 12 s is made once.
LOOP_SECONDS = 14.0


def conversation(
    speech: Samples, turn: float, turns: int, shift: float, *, room_db: float = ROOM_DB
) -> Samples:
    """Speech and silence in turns.

    Args:
        speech: said again and again, shape (n,), at 16 kHz.
        turn: seconds of each.
        turns: of each.
        shift: seconds into the first pair at which it begins.
        room_db: level of the room's noise, in dBFS.
    """
    count = round(turn * SAMPLE_RATE)
    words = np.resize(speech, turns * count)
    pairs = [np.concatenate([part, np.zeros(count, np.float32)]) for part in np.split(words, turns)]
    sound = np.roll(np.concatenate(pairs), -round(shift * SAMPLE_RATE))
    return in_room(sound, round(1000 * shift), room_db)


def in_room(sound: Samples, seed: int, room_db: float = ROOM_DB) -> Samples:
    """The sound (n,) with a quiet room's noise, of `room_db` dBFS."""
    room = np.random.default_rng(seed).standard_normal(len(sound)) * 10 ** (room_db / 20)
    made: Samples = (sound + room).astype(np.float32)
    return made
