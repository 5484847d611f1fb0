"""All sessions of one audio worker: messages in, clips that are due out.

No sockets and no model. Time is an argument.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from audio_worker.ring import ClipWindow, SpeechError, SpeechStream
from protocol.wire.clock import look_ahead
from protocol.wire.messages import Close, Failed, Pcm, Samples
from protocol.wire.phrases import phrase
from protocol.wire.video import JPEG

STAGE = "audio_worker"

#: Seconds without sound after which a clip waits for no more of it.
LOOKS_FOR = 0.06


@dataclass(frozen=True, slots=True, eq=False)
class DueClip:
    """A clip whose sound is complete.

    It has the fields of the message `Clip` except the tokens, and the 24,000 samples of the clip's window.
    """

    session: str
    epoch: int
    seq: int
    pts: int
    fps: int
    clip_frames: int
    avatar: str
    pose: str
    samples: Samples = field(repr=False)
    #: When it became due, on the caller's clock.
    since: float
    codec: str = JPEG
    #: Samples of the window after the clip.
    ahead: int = 0


@dataclass(slots=True)
class _Session:
    epoch: int
    #: None after an error: the rest of the epoch is ignored.
    stream: SpeechStream | None
    #: When its last message came, on the caller's clock.
    seen: float
    #: Its last message.
    last: Pcm


class Sessions:
    """The sessions' streams, and the queue of clips that wait for their features.

    Args:
        max_pending: clips of one session that may wait here. The oldest ones more than that are given up.
        expire_after: a session without a message for so many seconds is forgotten: its Close was lost.
    """

    def __init__(self, max_pending: int = 4, expire_after: float = 120.0) -> None:
        self.max_pending = max_pending
        self.expire_after = expire_after
        self._sessions: dict[str, _Session] = {}
        self._due: list[DueClip] = []

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def due(self) -> int:
        """Clips that wait for their features."""
        return len(self._due)

    def add_speech(self, pcm: Pcm, now: float) -> list[Failed]:
        """Add a message's samples to its session. The clips they complete join the queue.

        Returns:
            One message for each clip that is given up, and one if the session cannot go on.
        """
        session = self._sessions.get(pcm.session)
        if session is None or session.epoch < pcm.epoch:
            self._drop_due(pcm.session, pcm.epoch - 1)
            session = self._sessions[pcm.session] = _Session(pcm.epoch, None, now, pcm)
            try:
                session.stream = SpeechStream(
                    pcm.sample_rate, pcm.fps, pcm.clip_frames, pcm.samples[: pcm.history],
                    look_ahead(pcm.fps, pcm.clip_frames),
                )  # fmt: skip
            except SpeechError as error:
                return [_failed(pcm, str(error))]
        if session.epoch > pcm.epoch:
            return []
        session.seen, session.last = now, pcm
        if session.stream is None:
            return []
        if changed := _changed(session.stream, pcm):
            session.stream = None
            return [_failed(pcm, phrase("failed_changed", what=changed))]
        windows = session.stream.add_chunk(pcm.samples[pcm.history :], pcm.pts, pcm.flush)
        return self._add_due(pcm, windows, session.stream.ahead, now)

    def look_no_further(self, now: float) -> list[Failed]:
        """Make clips due that wait for sound after them, where none has come for a moment.

        Returns:
            One message for each clip that is given up.
        """
        failed = []
        for session in self._sessions.values():
            stream = session.stream
            if stream is not None and stream.looks_ahead and now - session.seen > LOOKS_FOR:
                failed += self._add_due(session.last, stream.look_no_further(), stream.ahead, now)
        return failed

    def _add_due(self, pcm: Pcm, windows: list[ClipWindow], ahead: int, now: float) -> list[Failed]:
        """Put clips into the queue of those that are due, with the options of their session's message."""
        for window in windows:
            self._due.append(
                DueClip(
                    pcm.session, pcm.epoch, window.seq, window.pts, pcm.fps, pcm.clip_frames,
                    pcm.avatar, pcm.pose, window.samples, now, pcm.codec, ahead,
                )
            )  # fmt: skip
        return self._overload(pcm.session) if windows else []

    def close(self, message: Close) -> None:
        """Forget a session and its clips, up to and including the message's epoch."""
        session = self._sessions.get(message.session)
        if session is not None and session.epoch <= message.epoch:
            del self._sessions[message.session]
        self._drop_due(message.session, message.epoch)

    def alive(self, clip: DueClip) -> bool:
        """Whether the clip's session still runs in the clip's epoch."""
        session = self._sessions.get(clip.session)
        return session is not None and session.epoch == clip.epoch

    def take_due(self, limit: int) -> list[DueClip]:
        """Take the oldest clips out of the queue, at most `limit`. It does not wait for more."""
        taken, self._due = self._due[:limit], self._due[limit:]
        return taken

    def expire(self, now: float) -> list[Close]:
        """Forget the sessions that have been silent for too long.

        Returns:
            A Close for each of them, to be sent downstream.
        """
        old = [Close(name, s.epoch) for name, s in self._sessions.items() if now - s.seen > self.expire_after]
        for message in old:
            self.close(message)
        return old

    def clear(self) -> None:
        """Forget every session and every clip.

        The gateway has given the sessions to another worker, or it is a new gateway.
        """
        self._sessions.clear()
        self._due.clear()

    def _drop_due(self, session: str, epoch: int) -> None:
        self._due = [clip for clip in self._due if clip.session != session or clip.epoch > epoch]

    def _overload(self, session: str) -> list[Failed]:
        waiting = [clip for clip in self._due if clip.session == session]
        given_up = waiting[: -self.max_pending]
        self._due = [clip for clip in self._due if clip not in given_up]
        return [
            Failed(clip.session, clip.epoch, clip.seq, STAGE, "overload", fatal=False) for clip in given_up
        ]


def _changed(stream: SpeechStream, pcm: Pcm) -> str:
    """Name the parameter of the stream that a message contradicts, or ''."""
    if stream.sample_rate != pcm.sample_rate:
        return "sample rate"
    if stream.clip_frames * pcm.fps != pcm.clip_frames * stream.fps:
        return "clip length"
    return ""


def _failed(pcm: Pcm, reason: str) -> Failed:
    return Failed(pcm.session, pcm.epoch, pcm.seq, STAGE, reason, fatal=True)
