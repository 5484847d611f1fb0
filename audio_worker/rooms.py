"""When the detector of voices need not be asked, since it would say the same again.

Half of a conversation is silent, and the detector's look at each clip is most of what silence costs the audio
worker. A room's noise is even: all of its pieces of 20 ms are about as loud. A voice makes some of them
louder, and so do keys and breath, so all of these are judged. A clip as even and as quiet as one just judged
is not.

A clip that begins less than `HANGOVER` after a voice is denoised, whatever it holds. So the detector is not
asked for the clip behind one that ends in a voice.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from audio_worker.sessions import DueClip
from audio_worker.voice import VoiceDetector, heard_seconds
from protocol.wire.clock import SAMPLE_RATE, pts_of_clip

#: Samples of a piece whose level counts.
PIECE = SAMPLE_RATE // 50
#: How many times as much power as the room a piece may have. White noise reaches 1.2 in one of 1,000 pieces.
LOUDER = 1.26
#: Seconds after which the detector is asked again, whatever the room is like.
ASKED_AGAIN_AFTER = 1.0
#: Rooms that are remembered. The one that was not heard for longest goes.
MOST_ROOMS = 1024


@dataclass(frozen=True)
class _Room:
    """The clip that the detector took for silent, and the power of its middle piece."""

    seq: int
    power: float


class Rooms:
    """Tells which clips hold no voice. Belongs to the compute thread.

    Args:
        detector: judges clips that are louder than their room, and each room once a second.
    """

    def __init__(self, detector: VoiceDetector) -> None:
        self._detector = detector
        self._rooms: OrderedDict[tuple[str, int], _Room] = OrderedDict()
        #: The clip of each session that follows on a voice.
        self._after_voice: dict[tuple[str, int], int] = {}

    def is_silent(self, clip: DueClip) -> bool:
        """Whether neither the clip nor the moment before it holds a voice."""
        if self.is_even(clip):
            return True
        place = clip.session, clip.epoch
        if self._after_voice.pop(place, None) == clip.seq:
            return False
        found = self._detector.judge(clip)
        self._rooms.pop(place, None)
        if found.silent:
            self._rooms[place] = _Room(clip.seq, float(np.median(_powers(clip))))
            while len(self._rooms) > MOST_ROOMS:
                self._rooms.popitem(last=False)
        elif found.voice_at_end:
            self._after_voice[place] = clip.seq + 1
            while len(self._after_voice) > MOST_ROOMS:
                self._after_voice.pop(next(iter(self._after_voice)))
        return found.silent

    def is_even(self, clip: DueClip) -> bool:
        """Whether the clip is as quiet as its room, which was judged less than a second before."""
        room = self._rooms.get((clip.session, clip.epoch))
        if room is None or not _is_recent(room, clip):
            return False
        return bool(_powers(clip).max() <= LOUDER * room.power)


def _is_recent(room: _Room, clip: DueClip) -> bool:
    lasts = pts_of_clip(1, clip.fps, clip.clip_frames) / SAMPLE_RATE
    return 0 < (clip.seq - room.seq) * lasts <= ASKED_AGAIN_AFTER


def _powers(clip: DueClip) -> NDArray[np.float32]:
    """The mean power of each piece of the sound that the detector judges a clip by."""
    pieces = round(heard_seconds(clip) * SAMPLE_RATE) // PIECE
    heard = clip.samples[-pieces * PIECE :].reshape(pieces, PIECE)
    powers: NDArray[np.float32] = np.einsum("ps,ps->p", heard, heard) / PIECE
    return powers
