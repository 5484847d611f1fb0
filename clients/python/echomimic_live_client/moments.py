"""Pictures and sound in small parts, for transports that keep no common clock for both.

The server sends the sound of half a second, and then its pictures. Such a transport plays sound from a queue
and shows each picture when it comes. So it needs a picture, then the sound that is heard while that picture
stays, then the next picture.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import numpy as np

from echomimic_live_client.inbox import Frame, Sound
from echomimic_live_client.session import Session
from echomimic_live_client.wire import Samples

_NOTHING = np.zeros(0, np.float32)


@dataclass(frozen=True, slots=True)
class Moment:
    """A picture, or the sound that is heard while the last one stays.

    Attributes:
        frame: the picture, None for sound.
        samples: float32, shape (n,), at `rate`. Empty beside a picture.
        rate: in Hz.
        end: how many of all pushed samples are heard when this moment is over. 0 where no speech is.
    """

    frame: Frame | None
    samples: Samples = field(repr=False)
    rate: int
    end: int


class MomentCutter:
    """Cuts the sounds of `Session.media` at its pictures. No I/O.

    Args:
        delay: seconds by which pictures come behind their sound.
    """

    def __init__(self, delay: float = 0.0) -> None:
        self._delay = delay
        self._sound: Sound | None = None
        #: Samples of the sound that were given out.
        self._given = 0
        #: Pictures whose turn has not come.
        self._waiting: deque[Frame] = deque()

    def take(self, item: Frame | Sound) -> list[Moment]:
        """The moments that are complete with this picture or sound."""
        if self._sound is not None and self._sound.epoch != item.epoch:
            # An interruption: nobody hears and sees what is left of the old speech.
            self._sound = None
            self._waiting.clear()
        if isinstance(item, Frame) and item.idle:  # it came when it was due, after all speech
            return [*self.end(), Moment(item, _NOTHING, 0, 0)]
        if isinstance(item, Sound):
            out = self._until(float("inf"))
            self._sound, self._given = item, 0
            # Pictures that come later are due after this time.
            return [*out, *self._until(item.time + self._delay if item.has_frames else float("inf"))]
        self._waiting.append(item)
        last = item.index == item.count - 1
        return self._until(float("inf") if last else item.time + self._delay)

    def end(self) -> list[Moment]:
        """The moments that are left when no more speech comes."""
        out = self._until(float("inf"))
        left = [Moment(frame, _NOTHING, 0, 0) for frame in self._waiting]
        self._waiting.clear()
        return [*out, *left]

    def _until(self, time: float) -> list[Moment]:
        """The sound up to this time, as far as it is there, cut at the pictures that are due."""
        sound = self._sound
        if sound is None:
            return []
        out, there = [], len(sound.samples)
        while self._waiting and (turn := self._waiting[0].time + self._delay) <= time:
            place = round((turn - sound.time) * sound.rate)
            if place > there:
                break
            out += self._give(sound, place)
            out.append(Moment(self._waiting.popleft(), _NOTHING, sound.rate, sound.position + self._given))
        return [*out, *self._give(sound, round(min(time - sound.time, there / sound.rate) * sound.rate))]

    def _give(self, sound: Sound, until: int) -> list[Moment]:
        """The samples before number `until` that were not given out, if there are any."""
        if until <= self._given:
            return []
        samples, self._given = sound.samples[self._given : until], until
        return [Moment(None, samples, sound.rate, sound.position + until)]


async def moments(session: Session, delay: float = 0.0) -> AsyncIterator[Moment]:
    """Everything that a session gives, in turn: a picture, then the sound that is heard while it stays.

    It takes from the same store as `Session.media`.

    Args:
        session: an open one.
        delay: seconds by which pictures come behind their sound, for a transport that is slower with sound.
    """
    cutter = MomentCutter(delay)
    async for item in session.media():
        for moment in cutter.take(item):
            yield moment
    for moment in cutter.end():
        yield moment
