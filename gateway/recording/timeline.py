"""The places of sounds and pictures in a recording. No files and no threads.

A recording shows the play-out of a client. Clips that follow each other lie without a gap. After a pause the
next one lies where it was played. Meanwhile the last picture stays, or pictures of idle life lie where they
were sent. Nothing is given out before its time, so an interruption cuts off the part that nobody heard.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from gateway.core.players import ClipSound
from protocol.wire.browser import VideoMessage
from protocol.wire.clock import SAMPLE_RATE, pts_after
from protocol.wire.messages import Samples
from protocol.wire.video import JPEG

#: Clips whose pictures may still come.
REMEMBERED_CLIPS = 16
#: Epoch and pts that no clip has.
NOWHERE = (0, -1)


@dataclass(frozen=True)
class SoundPiece:
    """Sound whose first sample has the number `start` in the recording. Silence is before it, if anything."""

    start: int
    samples: Samples = field(repr=False)


@dataclass(frozen=True)
class PicturePiece:
    """A picture that is shown from `pts` on, in samples at 16 kHz from the recording's beginning."""

    pts: int
    picture: VideoMessage = field(repr=False)


RecordingPiece = SoundPiece | PicturePiece


@dataclass
class _RecordedClip:
    """A clip of the recording: when it is played, and what of it is not given out yet."""

    start: float
    #: Number of its first sample in the recording.
    place: int
    #: Position of its first frame in its epoch.
    pts: int
    samples: Samples
    given: int = 0
    pictures: deque[VideoMessage] = field(default_factory=deque)


class RecordingTimeline:
    """One recording. It begins with the first clip that is put in."""

    def __init__(self, rate: int) -> None:
        """`rate`: of the sound, in Hz."""
        self.rate = rate
        self._clips: dict[tuple[int, int], _RecordedClip] = {}
        self._began = 0.0
        #: Samples up to the end of the last clip.
        self._end = 0
        #: Epoch and pts at which a clip would follow the last one without a gap.
        self._next: tuple[int, int] = (-1, 0)
        #: Codec, epoch, seq and index of the coded picture that was taken last.
        self._coded: tuple[str, int, int, int] = ("", 0, 0, 0)
        #: Pictures of idle life, which are shown when they come.
        self._idle: list[RecordingPiece] = []

    @property
    def empty(self) -> bool:
        """Whether nothing was put in yet."""
        return self._next[0] < 0

    def add_sound(self, sound: ClipSound, start: float) -> None:
        """Take the sound of the next clip, which is played from `start` on, in monotonic seconds."""
        message = sound.message
        if self.empty:
            self._began = start
        place = self._end
        if (message.epoch, message.pts) != self._next:
            place = max(place, round((start - self._began) * self.rate))
        self._clips[message.epoch, message.seq] = _RecordedClip(start, place, message.pts, message.samples)
        while len(self._clips) > REMEMBERED_CLIPS:
            del self._clips[next(iter(self._clips))]
        self._end = place + len(message.samples)
        self._next = message.epoch, message.pts + pts_after(len(message.samples), self.rate)

    def add_picture(self, picture: VideoMessage, now: float) -> None:
        """Take a picture. It is dropped where it cannot be decoded, or where its clip is not recorded."""
        clip = self._clips.get((picture.epoch, picture.seq))
        before = picture.codec, picture.epoch, picture.seq, picture.index - 1
        if (clip is None and not picture.idle) or (not picture.key and self._coded != before):
            return
        if picture.codec != JPEG:
            self._coded = picture.codec, picture.epoch, picture.seq, picture.index
        if clip is not None and not picture.idle:
            clip.pictures.append(picture)
            return
        if self.empty:
            self._began, self._next = now, NOWHERE
        self._idle.append(PicturePiece(round((now - self._began) * SAMPLE_RATE), picture))

    def pull(self, now: float) -> list[RecordingPiece]:
        """Everything whose time has come, in order."""
        out: list[RecordingPiece] = []
        for clip in self._clips.values():
            played = min(len(clip.samples), int((now - clip.start) * self.rate))
            if played > clip.given:
                out.append(SoundPiece(clip.place + clip.given, clip.samples[clip.given : played]))
                clip.given = played
            while clip.pictures and clip.start + self._offset(clip, clip.pictures[0]) / SAMPLE_RATE <= now:
                picture = clip.pictures.popleft()
                pts = clip.place * SAMPLE_RATE // self.rate + self._offset(clip, picture)
                out.append(PicturePiece(pts, picture))
        idle, self._idle = self._idle, []
        return out + idle

    def cut(self, now: float) -> list[RecordingPiece]:
        """Everything whose time has come. The rest is forgotten: nobody hears it."""
        out = self.pull(now)
        given = [clip.place + clip.given for clip in self._clips.values() if clip.given]
        self._end = max(given, default=self._end)
        self._clips.clear()
        self._next = self._next if self.empty else NOWHERE
        return out

    @staticmethod
    def _offset(clip: _RecordedClip, picture: VideoMessage) -> int:
        return max(0, picture.pts - clip.pts)
