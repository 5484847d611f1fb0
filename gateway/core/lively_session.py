"""The part of a session that keeps the face alive while its client sends nothing."""

from __future__ import annotations

from gateway.core.audio_log import AudioLog
from gateway.core.idle_life import IdleLife
from gateway.core.options import SessionLimits
from gateway.core.pace import PacedInput
from gateway.core.pcm_maker import PcmMaker
from gateway.core.players import Player
from gateway.core.session_counts import SessionCounts
from protocol.wire.figures import Histogram
from protocol.wire.messages import Pcm


class LivelySession(SessionCounts):
    """A session's counts and its idle life. `SessionCore` has the rest, and sets these fields."""

    limits: SessionLimits
    input: PacedInput
    parked: bool
    outage: str
    speech_at: float
    _log: AudioLog
    _pcm: PcmMaker
    _player: Player
    _carried: list[Pcm]
    _flush_asked: bool

    def __init__(self, first_frames: Histogram | None) -> None:
        """`first_frames` as for `SessionCounts`."""
        super().__init__(first_frames)
        #: Silent clips while the client sends nothing.
        self.life = IdleLife()

    def _live_on(self, now: float) -> list[Pcm]:
        """The silence of a clip of idle life, if one is due."""
        if now < self._ask_for_life_at(now):
            return []
        self.life.asked(self._log.clip, now)
        return [self._pcm.make(self._log.append_idle(now))]

    def _word_begins(self, now: float) -> bool:
        """Whether the first clip of speech after idle life is not there yet, and more of it may come."""
        if not (self.life.on and self._log.after_idle and self.input.waiting) or self._log.partial:
            return False
        more = now - self.speech_at < self.limits.idle and not self._flush_asked
        return more and self.input.waiting < self._log.missing

    def _ask_for_life_at(self, now: float) -> float:
        """When the next clip of idle life is due."""
        word = self._word_begins(now)
        if self.parked or self.outage or (self._speech_waits and not word):
            return float("inf")
        speech_at = self._first_frame_at(now) if word else None
        return self.life.ask_at(self.speech_at + self.limits.idle, self._player.clock.end, speech_at)

    @property
    def _speech_waits(self) -> bool:
        """Whether there is speech of the client that is not played yet."""
        return bool(self.input.waiting or self._carried or self._log.holds_speech)

    def _first_frame_at(self, now: float) -> float | None:
        """When the first frame of speech that waits is expected. None where none waits."""
        if not self._speech_waits:
            return None
        missing = 0
        if self._log.partial or self._word_begins(now):
            missing = max(0, self._log.missing - self.input.waiting)
        return now + missing / self._log.rate + self.last_delay
