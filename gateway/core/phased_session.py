"""The part of a session that moves its clips between those of other sessions.

Its first clip may begin with silence that the client did not send (`phases`). That silence has no pictures
and is never echoed. The clip's own pictures are held back for as long as it lasts, because the clip that
follows comes no sooner for it.
"""

from __future__ import annotations

from gateway.core.audio_log import AudioLog, Piece
from gateway.core.options import SessionOptions
from gateway.core.phases import ClipPhases
from gateway.core.reorder import Reorderer
from gateway.core.spoken_session import SpokenSession
from protocol.wire.figures import Histogram
from protocol.wire.messages import Frame, Samples
from protocol.wire.video import JPEG


class PhasedSession(SpokenSession):
    """The place of a session's clips in time. `SessionCore` has the rest, and sets these fields."""

    version: int
    options: SessionOptions
    _log: AudioLog
    _reorderer: Reorderer

    def __init__(self, first_frames: Histogram | None) -> None:
        """`first_frames` as for `SessionCounts`."""
        super().__init__(first_frames)
        #: Of all sessions, where there are others.
        self.phases = ClipPhases()
        #: Clip that is held back → until when.
        self._held: dict[int, float] = {}

    def _append_speech(self, samples: Samples, now: float) -> list[Piece]:
        """Add the client's samples to the log, with silence in front of them where that spreads clips."""
        self._begin_in_phase(samples, now)
        clip = self._log.clip
        pieces = self._log.append(samples, now)
        if self._log.clip > clip:
            self.phases.clip_due(self.name, self._log.shape, now)
        return pieces

    def _begin_in_phase(self, samples: Samples, now: float) -> None:
        """Choose the silence in front of these samples, if speech begins with them.

        Only live sound has a phase. Coded pictures need the ones before them, and version 1 has no pts to
        tell where the sound begins.
        """
        live = 0 < len(samples) < self._log.missing / 2 and not self.input.waiting and not self.says.busy
        if self.version == 1 or self.options.codec != JPEG or not live or not self._log.begins:
            return
        due = now + (self._log.missing - len(samples)) / self._log.rate
        self._log.begin_with_silence(self.phases.frames_of_silence(self.name, self._log.shape, due, now))

    def _hold_back(self, frame: Frame, now: float) -> None:
        """The first picture of a clip that began with silence waits, and with it all the others."""
        if frame.seq not in self._held and self._log.holds(frame.seq):
            silence = self._log.audio(frame.seq).silence
            if silence:
                self._held = {frame.seq: now + silence / self._log.rate}

    def _seconds_held(self, now: float) -> float | None:
        """Seconds for which the next clip is still held back, or None."""
        until = self._held.get(self._reorderer.next_seq)
        return None if until is None or until <= now else until - now

    def _in_silence(self, frame: Frame) -> bool:
        """Whether the frame belongs to silence that the client did not send."""
        audio = self._log.audio(frame.seq)
        return bool(audio.silence) and frame.pts < audio.pts

    @property
    def frames_late(self) -> int:
        """Frames that arrived after their turn."""
        return self._player.clock.late_frames

    @property
    def frames_dropped(self) -> int:
        """Frames that arrived, but that the client was too slow for."""
        return self._player.dropped
