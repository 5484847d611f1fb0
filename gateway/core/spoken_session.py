"""The part of a session that takes speech in: its client's sound, and the texts that the avatar speaks."""

from __future__ import annotations

import numpy as np

from gateway.core.lively_session import LivelySession
from gateway.core.says import SayEvent, SayQueue
from gateway.core.speech_events import SpeechEvents
from protocol.wire.browser import BrowserError
from protocol.wire.clock import look_ahead, samples_until
from protocol.wire.figures import Histogram
from protocol.wire.messages import Samples

#: A Pcm message has at least this many seconds, unless a clip or speech ends or as much time has passed.
#: Nothing is made of a clip before its end, so smaller ones would only cost time, in both processes.
LEAST_PCM_SECONDS = 0.2
#: A message grows by this many seconds for each message beyond the twentieth that waits for a worker.
MORE_PCM_SECONDS = 0.01
#: Seconds from a clip's last sample to its frames: assumed while no clip has come, and added for safety.
FIRST_DELAY, SPARE_DELAY = 0.5, 0.1


class SpokenSession(LivelySession):
    """A session's speech on its way in. `SessionCore` has the rest, and sets these fields."""

    name: str
    epoch: int
    live: bool
    received: int
    _pcm_at: float

    def __init__(self, first_frames: Histogram | None) -> None:
        """`first_frames` as for `SessionCounts`."""
        super().__init__(first_frames)
        #: Texts that the avatar speaks.
        self.says = SayQueue(self)
        self._events = SpeechEvents()

    def add_speech(self, samples: Samples, now: float) -> None:
        """Take samples from the client, shape (n,). Raises BrowserError("too_fast")."""
        if len(samples) and self.says.busy:
            if len(samples) > self.input.room - self.says.held:
                raise BrowserError("too_fast", "more audio waits behind the texts than can be kept")
            self.received += len(samples)
            self.says.hold(samples)
        elif len(samples):
            self.says.let_sound_in()
            self.input.put(samples)
            self.received += len(samples)
            self.speech_at = now

    @property
    def speech_due(self) -> bool:
        """Whether `next_pcm` may give something now that it did not give before the last speech came."""
        if self.says.busy or self._log.begins or (self.life.on and self._log.after_idle):
            return True
        return self.input.waiting >= min(LEAST_PCM_SECONDS * self._log.rate, self._wanted)

    @property
    def _wanted(self) -> int:
        """Samples of which the next clip can be made: to the clip's end, or to the end of its look ahead."""
        shape, log = self._log.shape, self._log
        ahead = samples_until(look_ahead(shape.fps, shape.frames), log.rate)
        left = ahead - log.partial
        return left if left > 0 else log.missing + ahead

    def _pcm_due(self, now: float, waiting: int) -> bool:
        """Whether enough speech is here for a message, or may wait no longer. Arguments as for `next_pcm`.

        The first samples after a pause never wait: the place of the session's clips follows from them.
        """
        seconds = max(LEAST_PCM_SECONDS, MORE_PCM_SECONDS * (1 + waiting))
        enough = self.input.waiting >= min(seconds * self._log.rate, self._wanted)
        ends = self._flush_asked or self.input.ends
        return enough or ends or self._log.begins or now - self._pcm_at >= seconds

    def _take_speech(self, now: float) -> tuple[Samples, int]:
        """The samples that go to the audio worker now, and how many were cut out of them.

        A little of the next clip waits until there is more of it. So a short clip is one message.
        """
        wanted, asked = self._wanted, self._flush_asked or self.input.ends
        rest = self.input.waiting - wanted
        keep = not asked and 0 <= rest < LEAST_PCM_SECONDS * self._log.rate
        return self.input.take(now, wanted if keep else None)

    def silent_for(self, now: float) -> float:
        """Seconds since the client's last sample came and all of its speech and its texts were played.

        Minutes of speech may come at once, so the last sample's arrival does not tell when speech ends.
        """
        if self._speech_waits or self.says.busy:
            return 0.0
        return max(0.0, now - max(self.speech_at, self._player.clock.end))

    def end_speech(self) -> None:
        """The client says that a pause begins: the clip is to be flushed at once."""
        if self.says.busy:
            self.says.hold(np.empty(0, np.float32))
        else:
            self._flush_asked = True

    @property
    def _clip_due(self) -> float:
        """When the begun clip must go, so that its frames are there at its turn.

        A pause does not end it before that: while earlier clips are still played, padding would put more
        silence into speech that comes in bursts than it has.
        """
        delay = self.latency.figures("s").get("s_p95", FIRST_DELAY) + SPARE_DELAY
        return self._player.clock.end - delay

    def take_events(self) -> list[SayEvent]:
        """What the client is to be told about the avatar's speech and its texts."""
        speech: list[SayEvent] = [(kind, {**fields}) for kind, fields in self._events.take()]
        return speech + self.says.take_events()

    @property
    def credit(self) -> int:
        """Position up to which the client may send samples now."""
        return self.received + self.input.room - self.says.held
